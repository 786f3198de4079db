// The pmap conformance suite over the soft machine, in each of the modes that the engine must cope with.
// (It lies here and not in tests/pmap/soft because it needs the frames of src/machine too.)
#include "support/soft_pmap_machine.h"

namespace enchilada {
namespace {

struct Plain {
  static SoftPmapOptions pmap() { return {}; }
  static void memory(SoftMemoryOptions&) {}
};

/// What the host machine can do: one address per frame, no reference bits, "was writable" is all it knows.
struct HostLike {
  static SoftPmapOptions pmap() {
    SoftPmapOptions options;
    options.one_address = true;
    options.reference_bits = false;
    options.dirty_bits = false;
    return options;
  }
  static void memory(SoftMemoryOptions& options) {
    options.grant_at_most = PageCount{5};
    options.run_at_most = PageCount{3};
  }
};

/// Plain with other modes of its page tables.
template <auto... kModes>
struct WithModes : Plain {
  static SoftPmapOptions pmap() {
    SoftPmapOptions options;
    (options.modes.set(kModes), ...);
    return options;
  }
};
using ChunkedSuper = WithModes<PvMode::kChunk, ForkTablesMode::kDrop, SuperpagesMode::kPromote>;
using Hashed = WithModes<PageTableMode::kHashed>;
using Shared = WithModes<SharedTablesMode::kOn, PvMode::kChunk>;

INSTANTIATE_TYPED_TEST_SUITE_P(SoftChunkedSuper, PmapConformance, SoftPmapMachine<ChunkedSuper>);
INSTANTIATE_TYPED_TEST_SUITE_P(SoftHashed, PmapConformance, SoftPmapMachine<Hashed>);
INSTANTIATE_TYPED_TEST_SUITE_P(SoftShared, PmapConformance, SoftPmapMachine<Shared>);
INSTANTIATE_TYPED_TEST_SUITE_P(SoftPlain, PmapConformance, SoftPmapMachine<Plain>);
INSTANTIATE_TYPED_TEST_SUITE_P(SoftHostLike, PmapConformance, SoftPmapMachine<HostLike>);

}  // namespace
}  // namespace enchilada
