// All designs of the laboratory, one entry each. Invariants: see designs.h.
#include "lab/designs/designs.h"

#include <array>

#include "lab/designs/anon_vma/anon_vma.h"
#include "lab/designs/anon_vma_chain/anon_vma_chain.h"
#include "lab/designs/anonmm/anonmm.h"
#include "lab/designs/freebsd/freebsd.h"
#include "lab/designs/linux24/virtual_scan.h"
#include "lab/designs/objrmap/objrmap.h"
#include "lab/designs/pte_chains/pte_chains.h"

namespace enchilada::lab {
namespace {

template <LinuxPartsMaker kParts>
std::unique_ptr<VmDesign> make_linux(std::string_view name, const DesignOptions& options) {
  return std::make_unique<LinuxVm>(name, options, kParts);
}

std::unique_ptr<VmDesign> make_freebsd(std::string_view name, const DesignOptions& options) {
  return std::make_unique<FreebsdVm>(name, options, VmModes(Preset::kArticle));
}

std::unique_ptr<VmDesign> make_freebsd_modern(std::string_view name, const DesignOptions& options) {
  return std::make_unique<FreebsdVm>(name, options, VmModes(Preset::kModern));
}

std::unique_ptr<VmDesign> make_freebsd_shared_tables(std::string_view name, const DesignOptions& options) {
  VmModes modes(Preset::kArticle);
  modes.set(ForkTablesMode::kCopy).set(SharedTablesMode::kOn);
  return std::make_unique<FreebsdVm>(name, options, modes);
}

constexpr std::array kDesigns = {
    DesignEntry{"freebsd", "2000", "pv entries, page tables that can be thrown away (preset article)",
                make_freebsd},
    DesignEntry{"freebsd_modern", "2023", "pv chunks, superpages, reservations (preset modern)",
                make_freebsd_modern},
    DesignEntry{"freebsd_shared_tables", "-", "freebsd with leaf tables shared at fork",
                make_freebsd_shared_tables},
    DesignEntry{"linux24", "2001", "no reverse map: a scan of all page tables", make_linux<make_linux24>},
    DesignEntry{"pte_chains", "2002", "every page lists its page-table entries", make_linux<make_pte_chains>},
    DesignEntry{"objrmap_list", "2003", "files: a list of mappings; anonymous: PTE chains",
                make_linux<make_objrmap_list>},
    DesignEntry{"objrmap_prio", "2004", "files: a prio tree of mappings; anonymous: PTE chains",
                make_linux<make_objrmap_prio>},
    DesignEntry{"objrmap_interval", "2012", "files: an interval tree of mappings; anonymous: PTE chains",
                make_linux<make_objrmap_interval>},
    DesignEntry{"anon_vma", "2004", "files: prio tree; anonymous: a list of related mappings",
                make_linux<make_anon_vma>},
    DesignEntry{"anonmm", "2004", "files: prio tree; anonymous: address space and address",
                make_linux<make_anonmm>},
    DesignEntry{"anon_vma_chain_2010", "2010", "files: prio tree; anonymous: links to every ancestor",
                make_linux<make_anon_vma_chain_2010>},
    DesignEntry{"anon_vma_chain", "2015", "files: interval tree; anonymous: links, anon_vmas used again",
                make_linux<make_anon_vma_chain>},
};

}  // namespace

std::span<const DesignEntry> designs() {
  return kDesigns;
}

const DesignEntry* find_design(std::string_view name) {
  for (const DesignEntry& entry : kDesigns) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

std::unique_ptr<VmDesign> make_design(std::string_view name, const DesignOptions& options) {
  const DesignEntry* const entry = find_design(name);
  CHECK(entry != nullptr);
  return entry->make(entry->name, options);
}

}  // namespace enchilada::lab
