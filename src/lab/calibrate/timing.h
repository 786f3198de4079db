// Taking the time of probes. Invariant: results are nanoseconds.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

namespace enchilada::lab {

template <typename Work>
double time_of(Work work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
}

template <typename Work>
double least_of(int rounds, Work work) {
  double least = time_of(work);
  for (int i = 1; i < rounds; ++i) least = std::min(least, time_of(work));
  return least;
}

/// For what may take a short cut now and then.
inline double median_of(std::vector<double> samples) {
  const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  return *middle;
}

}  // namespace enchilada::lab
