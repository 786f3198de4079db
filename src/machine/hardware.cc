// The way of an access through TLB, page tables and caches, and of an invalidation to the CPUs. Invariants:
// see hardware.h.
#include "machine/hardware.h"

#include <bit>

namespace enchilada {

Hardware::Hardware(const HardwareOptions& options, PageCount frames, VirtualClock& clock)
    : options_(options),
      tables_at_(to_bytes(frames).value()),
      clock_(clock),
      l3_(options.l3),
      holders_(std::size_t{1} << 16, 0) {
  CHECK(options.cpus >= 1 && options.cpus <= 64, options.cpus);
  CHECK(options.l1.line == options.l2.line && options.l1.line == options.l3.line, options.l1.line);
  CHECK(options.l1.bytes.value() != 0);
  cpus_.reserve(options.cpus);
  for (unsigned i = 0; i < options.cpus; ++i) cpus_.emplace_back(options);
}

void Hardware::run_on(unsigned cpu) {
  CHECK(cpu < cpus_.size(), cpu);
  settle_shootdown();
  current_ = cpu;
}

const Cache& Hardware::cache(unsigned level, unsigned cpu) const {
  CHECK(level >= 1 && level <= 3 && cpu < cpus_.size(), level, cpu);
  return level == 1 ? cpus_[cpu].l1 : level == 2 ? cpus_[cpu].l2 : l3_;
}

void Hardware::charge(Charge to, Picoseconds time) {
  Cpu& cpu = cpus_[current_];
  cpu.time = cpu.time + time;
  Picoseconds& sum = counts_.time[static_cast<std::size_t>(to)];
  sum = sum + time;
  show_time(cpu);
}

void Hardware::show_time(const Cpu& cpu) {
  clock_.advance_to(Nanoseconds{cpu.time.value() / 1000});
}

void Hardware::reset_counts() {
  counts_ = {};
  for (Cpu& cpu : cpus_) {
    cpu.tlb.reset_counts();
    cpu.l1.reset_counts();
    cpu.l2.reset_counts();
  }
  l3_.reset_counts();
}

// -----------------------------------------------------------------------------------------------------
// caches

/// A dirty line leaves a cache: into the next one that exists, else to memory.
void Hardware::put_back(Cache* below, Cache* further, std::uint64_t line) {
  while (line != Cache::kNoLine) {
    if (below == nullptr) {
      ++counts_.memory_writes;
      return;
    }
    if (below->exists()) line = below->write_back(line);
    below = further;
    further = nullptr;
  }
}

/// Before a CPU writes, nobody else may have the line; before it reads, nobody may have written it. Asked
/// only where the line is not known to be its own.
void Hardware::take_from_others(std::uint64_t line, bool write) {
  for (unsigned i = 0; i < cpus_.size(); ++i) {
    if (i == current_) continue;
    (void)cpus_[i].l1.snoop(line, !write);
    if (cpus_[i].l2.exists()) (void)cpus_[i].l2.snoop(line, !write);
  }
}

/// Brings a line into all caches. True: the first one had it.
bool Hardware::fetch(Cpu& cpu, std::uint64_t line, bool write, Picoseconds* time) {
  const CostModel& cost = options_.cost;
  *time = cost.l1;
  const Cache::Outcome first = cpu.l1.access(line, write);
  if (cpus_.size() > 1 && !(first.hit && (first.was_dirty || !write))) take_from_others(line, write);
  if (first.hit) return true;
  put_back(&cpu.l2, &l3_, first.out);
  bool found = false;
  if (cpu.l2.exists()) {
    const Cache::Outcome second = cpu.l2.access(line, false);
    put_back(&l3_, nullptr, second.out);
    *time = *time + cost.l2;
    found = second.hit;
  }
  if (!found && l3_.exists()) {
    const Cache::Outcome third = l3_.access(line, false);
    put_back(nullptr, nullptr, third.out);
    *time = *time + cost.l3;
    found = third.hit;
  }
  if (!found) {
    ++counts_.memory_reads;
    *time = *time + cost.memory;
  }
  return false;
}

void Hardware::touch(PhysAddr address, bool write, Charge to) {
  Cpu& cpu = cpus_[current_];
  Picoseconds time;
  (void)fetch(cpu, cpu.l1.line_of(address), write, &time);
  charge(to, time);
}

// ------------------------------------------------------------------------------------------------
// translation

void Hardware::switch_space(Cpu& cpu, SpaceId space) {
  if (cpu.space != kNoSpace) {
    ++counts_.switches;
    charge(Charge::kTlb, options_.cost.space_switch);
    if (!options_.space_ids) {
      cpu.tlb.flush_all();
      holders_[cpu.space] &= ~(std::uint64_t{1} << current_);
    }
  }
  cpu.space = space;
}

void Hardware::walk_tables(const PmapWalk& walk) {
  ++counts_.walks;
  counts_.walk_reads += walk.reads;
  for (unsigned i = 0; i < walk.reads; ++i) touch(PhysAddr{tables_at_ + walk.entry[i]}, false, Charge::kWalk);
}

/// Does the TLB's entry say what the tables say?
bool Hardware::agrees(const Tlb::Hit& hit, const PmapWalk& walk) {
  if (hit.large != (walk.page_shift == kLargePageShift)) return false;
  const std::uint64_t within = hit.large ? (walk.va.value() >> kPageShift) & 511 : 0;
  return hit.entry->frame + within == walk.frame.value();
}

/// A hit that the tables do not bear out. A write may fault through a good entry, that of a page that may
/// only be read; not when it has been written through this entry before.
void Hardware::note_stale(const Tlb::Hit& hit, const PmapWalk& walk) {
  if (walk.found || !walk.write || hit.entry->written) ++counts_.stale;
}

void Hardware::translate(Cpu& cpu, const PmapWalk& walk) {
  const Tlb::Hit hit = cpu.tlb.lookup(walk.space, walk.va);
  if (hit.level == Tlb::Level::kSecond) charge(Charge::kTlb, options_.cost.tlb_second);
  if (hit.level != Tlb::Level::kMiss) {
    if (walk.found && agrees(hit, walk)) {
      if (walk.write && !hit.entry->written) {
        hit.entry->written = true;
        ++counts_.dirty_assists;
        if (walk.reads > 0) touch(PhysAddr{tables_at_ + walk.entry[walk.reads - 1]}, true, Charge::kWalk);
      }
      return;
    }
    note_stale(hit, walk);
    cpu.tlb.invalidate(walk.space, walk.va);  // as x86 does on a fault
  }
  walk_tables(walk);
  if (!walk.found) return;
  const bool large = walk.page_shift == kLargePageShift;
  const std::uint64_t within = large ? (walk.va.value() >> kPageShift) & 511 : 0;
  const FrameNumber base{static_cast<std::uint32_t>(walk.frame.value() - within)};
  cpu.tlb.fill(walk.space, walk.va, large, base, walk.write);
}

void Hardware::walked(const PmapWalk& walk) {
  settle_shootdown();
  Cpu& cpu = cpus_[current_];
  if (cpu.space != walk.space) switch_space(cpu, walk.space);
  holders_[walk.space] |= std::uint64_t{1} << current_;
  translate(cpu, walk);
  if (!walk.found) {
    ++counts_.faults;
    return charge(Charge::kFault, options_.cost.fault_trap);
  }
  ++counts_.accesses;
  if (walk.write) ++counts_.writes;
  touch(phys_addr(walk.frame, walk.va.value() & kPageMask), walk.write, Charge::kCache);
}

// ------------------------------------------------------------------------------------------------
// shoot-downs

/// One CPU's TLB forgets a range of a space.
void Hardware::forget(unsigned cpu, SpaceId space, VirtRange range, bool charged) {
  Tlb& tlb = cpus_[cpu].tlb;
  const std::uint64_t pages = to_pages(range.size()).value();
  Picoseconds time = options_.cost.flush;
  if (pages > options_.flush_above_pages) {
    tlb.flush_space(space);
    ++counts_.spaces_flushed;
  } else {
    for (VirtAddr va = page_floor(range.start); va < range.end; va = va + ByteCount{kPageSize}) {
      tlb.invalidate(space, va);
    }
    counts_.pages_invalidated += pages;
    time = options_.cost.invalidate_page * pages;
  }
  if (!charged) return;
  cpus_[cpu].time = cpus_[cpu].time + time;
  Picoseconds& sum = counts_.time[static_cast<std::size_t>(Charge::kShootdown)];
  sum = sum + time;
  show_time(cpus_[cpu]);
}

/// Tells every CPU that may hold translations of these spaces. One that runs such a space is interrupted (all
/// that one shoot-down interrupts, together: settle_shootdown()); one that runs another learns of it when it
/// switches back.
void Hardware::invalidated(std::span<const SpaceId> spaces, VirtRange range) {
  if (range.empty()) return;
  for (const SpaceId space : spaces) {
    for (std::uint64_t left = holders_[space]; left != 0; left &= left - 1) {
      const auto cpu = static_cast<unsigned>(std::countr_zero(left));
      const bool running = cpus_[cpu].space == space;
      if (cpu != current_ && running) interrupted_ |= std::uint64_t{1} << cpu;
      if (running || cpu == current_) {
        forget(cpu, space, range, true);
        continue;
      }
      ++counts_.deferred;
      cpus_[cpu].tlb.flush_space(space);
      holders_[space] &= ~(std::uint64_t{1} << cpu);
    }
  }
}

/// The interrupts of the shoot-down that has been gathered so far.
void Hardware::settle_shootdown() {
  if (interrupted_ == 0) return;
  const auto targets = static_cast<std::uint64_t>(std::popcount(interrupted_));
  ++counts_.shootdowns;
  counts_.interrupts += targets;
  const CostModel& cost = options_.cost;
  for (std::uint64_t left = interrupted_; left != 0; left &= left - 1) {
    Cpu& target = cpus_[static_cast<unsigned>(std::countr_zero(left))];
    target.time = target.time + cost.interrupt_taken;
    Picoseconds& sum = counts_.time[static_cast<std::size_t>(Charge::kShootdown)];
    sum = sum + cost.interrupt_taken;
  }
  interrupted_ = 0;
  charge(Charge::kShootdown, cost.interrupt_send + cost.interrupt_wait * (targets - 1));
}

// ---------------------------------------------------------------------------------------------------
// software

void Hardware::note(PmapEvent event, std::uint64_t n) {
  counts_.pmap[static_cast<std::size_t>(event)] += n;
  const Picoseconds each = options_.cost.of(event);
  if (each.value() != 0) charge(Charge::kPmap, each * n);
  if (event == PmapEvent::kShootdown) settle_shootdown();
}

void Hardware::note(KernelEvent event, std::uint64_t n) {
  counts_.kernel[static_cast<std::size_t>(event)] += n;
  const Picoseconds each = options_.cost.of(event);
  if (each.value() != 0) charge(Charge::kKernel, each * n);
}

void Hardware::pages_zeroed(PageCount n) {
  counts_.zeroed += n.value();
  charge(Charge::kPages, options_.cost.zero_page * n.value());
}

void Hardware::pages_copied(PageCount n) {
  counts_.copied += n.value();
  charge(Charge::kPages, options_.cost.copy_page * n.value());
}

void Hardware::disk_transfer(bool seek, PageCount pages) {
  const DiskCosts& disk = options_.cost.disk;
  if (seek) ++counts_.disk_seeks;
  counts_.disk_pages += pages.value();
  charge(Charge::kDisk, (seek ? disk.seek : Picoseconds{0}) + disk.page * pages.value());
}

}  // namespace enchilada
