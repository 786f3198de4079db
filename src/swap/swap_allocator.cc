// SwapAllocator: from a mode to the class that implements it.
#include "swap/swap_allocator.h"

namespace enchilada {
namespace {

static_assert(BlockAllocator<Blist> && BlockAllocator<Blist1999> && BlockAllocator<SwapList3x>);
static_assert(LossyAllocator<SwapList3x> && !LossyAllocator<Blist> && !LossyAllocator<Blist1999>);

template <class A>
struct Type {
  using type = A;
};

/// Calls use(Type<the mode's class>).
template <class Use>
auto with_class(SwapAllocatorMode mode, Use use) {
  switch (mode) {
    case SwapAllocatorMode::kBlist:
      return use(Type<Blist>{});
    case SwapAllocatorMode::kBlist1999:
      return use(Type<Blist1999>{});
    case SwapAllocatorMode::kList3x:
      return use(Type<SwapList3x>{});
  }
  check_failed(__FILE__, __LINE__, "no such allocator", static_cast<std::uint64_t>(mode));
}

}  // namespace

std::size_t SwapAllocator::required_bytes(SwapAllocatorMode mode, PageCount blocks) {
  return with_class(mode, [&](auto t) { return decltype(t)::type::required_bytes(blocks); });
}

SwapAllocator SwapAllocator::create(SwapAllocatorMode mode, std::span<std::byte> storage, PageCount blocks,
                                    PageCount boundary) {
  SwapAllocator made;
  with_class(mode, [&](auto t) { made.list_ = decltype(t)::type::create(storage, blocks, boundary); });
  return made;
}

SwapAllocator SwapAllocator::attach(SwapAllocatorMode mode, std::span<std::byte> storage) {
  SwapAllocator seen;
  with_class(mode, [&](auto t) { seen.list_ = decltype(t)::type::attach(storage); });
  return seen;
}

}  // namespace enchilada
