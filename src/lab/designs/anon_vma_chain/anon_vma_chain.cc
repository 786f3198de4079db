// anon_vma chains. Invariants: see anon_vma_chain.h.
#include "lab/designs/anon_vma_chain/anon_vma_chain.h"

#include "lab/designs/anon_vma/anon_vma.h"
#include "lab/designs/objrmap/objrmap.h"

namespace enchilada::lab {
namespace {

/// On a machine of 64 bits: pointers to both, a list link, a red-black node and its largest end; a lock,
/// root, parent, degree, tree; and in each VMA the pointer to its own anon_vma and a list head.
constexpr ByteCount kLinkBytes{64};
constexpr ByteCount kAnonBytes{88};
constexpr ByteCount kVmaBytes{24};

}  // namespace

AnonVma& AnonVmaChains::new_anon(AnonVma* parent) {
  auto* const anon = new AnonVma;
  anon->at = memory_.allocate(KernelType::kAnonVma, kAnonBytes);
  anon->parent = parent == nullptr ? anon : parent;
  anon->root = parent == nullptr ? anon : parent->root;
  return *anon;
}

void AnonVmaChains::index(AnonVmaLink& link) {
  link.anon->links.insert(link.node, link, link.vma->offset, link.vma->last(), looker_);
  memory_.write(link.at);
}

void AnonVmaChains::link(Vma& vma, AnonVma& anon) {
  auto* const link = new AnonVmaLink;
  link->at = memory_.allocate(KernelType::kAnonVmaChain, kLinkBytes);
  link->anon = &anon;
  link->vma = &vma;
  vma.links.push_back(link);
  index(*link);
}

/// anon_vma_clone(): to all that `from` is linked to, oldest first.
void AnonVmaChains::link_all(const Vma& from, Vma& fresh, CloneKind kind) {
  const KernelLockHold lock(memory_.hardware());  // the root's: one for the whole tree
  for (const AnonVmaLink* const pattern : from.links) {
    AnonVma& anon = *pattern->anon;
    memory_.read(pattern->at);
    link(fresh, anon);
    const bool reusable = reuse_ == AnonVmaReuse::kByDegree && kind == CloneKind::kFork &&
                          fresh.anon == nullptr && &anon != from.anon && anon.degree < 2;
    if (reusable) fresh.anon = &anon;
  }
  if (fresh.anon != nullptr) ++anon_of(fresh.anon)->degree;
}

void AnonVmaChains::cloned(Vma& from, Vma& fresh, CloneKind kind) {
  if (from.anon == nullptr) return;
  fresh.anon = kind == CloneKind::kFork ? nullptr : from.anon;
  link_all(from, fresh, kind);
  if (fresh.anon != nullptr) return;
  AnonVma& parent = *anon_of(from.anon);
  AnonVma& own = new_anon(&parent);
  ++parent.degree;
  fresh.anon = &own;
  const KernelLockHold lock(memory_.hardware());
  link(fresh, own);
}

void AnonVmaChains::linked(Vma& /*vma*/) {
  memory_.grow(KernelType::kAnonLinks, kVmaBytes);
}

/// unlink_anon_vmas(): newest first, so that an anon_vma goes before the one it hangs on.
void AnonVmaChains::unlinked(Vma& vma) {
  memory_.shrink(KernelType::kAnonLinks, kVmaBytes);
  if (vma.links.empty()) return;
  const KernelLockHold lock(memory_.hardware());
  --anon_of(vma.anon)->degree;
  for (auto it = vma.links.rbegin(); it != vma.links.rend(); ++it) {
    AnonVmaLink* const link = *it;
    AnonVma* const anon = link->anon;
    anon->links.erase(link->node, looker_);
    memory_.free(KernelType::kAnonVmaChain, link->at, kLinkBytes);
    delete link;
    if (anon->links.size() != 0) continue;
    --anon->parent->degree;
    memory_.free(KernelType::kAnonVma, anon->at, kAnonBytes);
    delete anon;
  }
  vma.links.clear();
  vma.anon = nullptr;
}

void AnonVmaChains::before_resize(Vma& vma) {
  for (AnonVmaLink* const link : vma.links) link->anon->links.erase(link->node, looker_);
}

void AnonVmaChains::after_resize(Vma& vma) {
  for (AnonVmaLink* const link : vma.links) index(*link);
}

bool AnonVmaChains::may_merge(const Vma& left, const Vma& right) const {
  if (left.anon == right.anon) return true;
  if (left.anon != nullptr && right.anon != nullptr) return false;
  return (left.anon != nullptr ? left : right).links.size() == 1;
}

void AnonVmaChains::merging(Vma& kept, Vma& gone) {
  if (kept.anon == nullptr) cloned(gone, kept, CloneKind::kSplit);
}

void AnonVmaChains::prepare(Vma& vma) {
  const Vma* const neighbour =
      mergeable_neighbour(vma, [](const Vma& other) { return other.links.size() == 1; });
  AnonVma& anon = neighbour != nullptr ? *anon_of(neighbour->anon) : new_anon(nullptr);
  ++anon.degree;
  vma.anon = &anon;
  const KernelLockHold lock(memory_.hardware());
  link(vma, anon);
}

/// A page from swap may be another's, too: whom all that could have it are linked to is the root.
void AnonVmaChains::mapped(LinuxPage& page, Vma& vma, VirtAddr va, x86::Pte& /*pte*/, MapKind kind) {
  if (page.mapcount != 1) return;
  page.anon = kind == MapKind::kFromSwap ? anon_of(vma.anon)->root : vma.anon;
  page.index = vma.index_of(va);
}

/// page_move_anon_rmap(): nobody else can have it any more.
void AnonVmaChains::owned(LinuxPage& page, Vma& vma) {
  page.anon = vma.anon;
}

void AnonVmaChains::locate(LinuxPage& page, std::vector<Place>* found) {
  if (page.mapcount == 0) return;
  const KernelLockHold lock(memory_.hardware());
  AnonVma& anon = *anon_of(page.anon);
  memory_.read(anon.at);
  anon.links.stab(page.index, looker_, [&](AnonVmaLink& link) {
    memory_.note(KernelEvent::kVmaVisit);
    memory_.read(link.vma->at);
    (void)look_in(*link.vma, page, found);
    return found->size() < page.mapcount;
  });
}

LinuxParts make_anon_vma_chain(const LinuxCore& core) {
  return {make_file_interval_tree(core), std::make_shared<AnonVmaChains>(core, AnonVmaReuse::kByDegree),
          std::make_unique<SecondChance>()};
}

LinuxParts make_anon_vma_chain_2010(const LinuxCore& core) {
  return {make_file_prio_tree(core), std::make_shared<AnonVmaChains>(core, AnonVmaReuse::kNever),
          std::make_unique<SecondChance>()};
}

}  // namespace enchilada::lab
