// Pager: the convenience forms that every pager shares.
#include "vm/vm_pager.h"

#include <algorithm>
#include <array>

namespace enchilada {

void Pager::put_pages(PagerHandle& handle, PageIndex first, std::span<const FrameNumber> frames,
                      std::span<PagerReturn> verdicts) {
  std::array<PutRequest, 64> requests;
  for (std::size_t at = 0; at < frames.size(); at += requests.size()) {
    const std::size_t n = std::min(requests.size(), frames.size() - at);
    for (std::size_t i = 0; i < n; ++i) requests[i] = {&handle, first + PageCount{at + i}, frames[at + i]};
    put({requests.data(), n});
    for (std::size_t i = 0; i < n; ++i) verdicts[at + i] = requests[i].verdict;
  }
}

}  // namespace enchilada
