// Both sides of every operation, and the comparisons.
#include "model_rig.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "validate/validate.h"
#include "vm/vm_object.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"

namespace enchilada::model {
namespace {

constexpr std::size_t kHistory = 60;

unsigned long long hex(VirtAddr va) {
  return va.value();
}
int code(KernReturn r) {
  return static_cast<int>(r);
}

bool is_zero(const Words& words) {
  for (const std::uint64_t word : words) {
    if (word != 0) return false;
  }
  return true;
}

std::string format(const char* text, va_list arguments) {
  char line[400];
  std::vsnprintf(line, sizeof(line), text, arguments);
  return line;
}

}  // namespace

ModelRig::ModelRig(const RigConfig& config) : config_(config), engine_(config.engine), history_(kHistory) {
  make_files();
  Process p;
  p.map = engine_.create_map(PageCount{config.map_pages});
  if (config.metadata_may_end) {
    Arena& arena = engine_.machine().arena();
    const std::size_t left = arena.size() - arena.used();
    if (left > config.metadata_left) (void)arena.allocate(left - config.metadata_left);
  }
  p.model = std::make_unique<ModelMap>(p.map->bounds());
  processes_.push_back(std::move(p));
}

ModelRig::~ModelRig() {
  processes_.clear();
}

/// The first has a little more than a few pages, the next more than memory.
void ModelRig::make_files() {
  std::uint64_t bytes = 5 * kPageSize + 1024;
  for (std::size_t i = 0; i < config_.files; ++i, bytes *= 13) {
    File file{std::make_unique<MemoryFile>(ByteCount{bytes}, config_.seed + i), nullptr,
              std::make_shared<ModelFile>()};
    file.vnode = VmFile::open(engine_.system(), engine_.file_pager(), *file.store);
    file.model->resize(bytes);
    for (std::uint64_t page = 0; page < file.model->pages.size(); ++page) {
      Words& words = file.model->pages[page];
      words[0] = (page + 1) << 32 | i;
      const auto word = std::as_bytes(std::span(words).first(1));
      if (!file.store->write(to_bytes(PageCount{page}), word)) fail("the file cannot be written");
    }
    files_.push_back(std::move(file));
  }
}

/// Whoever reads the files now must find what was stored.
void ModelRig::close_files() {
  for (File& file : files_) {
    file.vnode.reset();
    if (file.store->size().value() != file.model->length) fail("a file's length differs");
    std::vector<std::byte> bytes(file.model->pages.size() * kPageSize);
    if (!file.store->read(ByteCount{0}, std::span(bytes).first(file.store->size().value())))
      fail("a file cannot be read");
    for (std::size_t page = 0; page < file.model->pages.size(); ++page) {
      for (std::size_t i = 0; i < kWords; ++i) {
        std::uint64_t word;
        std::memcpy(&word, bytes.data() + page * kPageSize + word_offset(i), 8);
        if (word != file.model->pages[page][i]) fail("file, page %zu word %zu differs in the store", page, i);
      }
    }
  }
  files_.clear();
}

void ModelRig::note(const char* text, ...) {
  va_list arguments;
  va_start(arguments, text);
  history_[history_at_++ % kHistory] = format(text, arguments);
  va_end(arguments);
}

void ModelRig::fail(const char* text, ...) {
  if (!failure_.empty()) return;
  va_list arguments;
  va_start(arguments, text);
  failure_ = format(text, arguments);
  va_end(arguments);
}

std::string ModelRig::history() const {
  std::string text;
  for (std::size_t i = 0; i < kHistory; ++i) {
    const std::string& line = history_[(history_at_ + i) % kHistory];
    if (!line.empty()) text += "  " + line + "\n";
  }
  return text;
}

// ---- verdicts and attributes
// -------------------------------------------------------------------------------------

/// Can lack of memory, of swap or a failing disk be the reason?
bool ModelRig::explained(KernReturn got) const {
  if (got == KernReturn::kResourceShortage) return config_.memory_may_end();
  return got == KernReturn::kFailure && config_.io_errors;
}

/// True: the operation took effect and the model must follow.
bool ModelRig::same(const char* what, KernReturn got, KernReturn expected) {
  if (got == expected) return got == KernReturn::kSuccess;
  ++(got == KernReturn::kFailure ? accepted_.io_failure : accepted_.shortage);
  if (!(explained(got) && expected == KernReturn::kSuccess)) {
    fail("%s: verdict %d, expected %d", what, code(got), code(expected));
  }
  return false;
}

void ModelRig::compare_page(const VmMap::EntryView& entry, std::uint64_t number, const ModelPage& page) {
  const unsigned long long at = number << kPageShift;
  if (entry.kind != page.kind) fail("%llx: kind differs", at);
  if (entry.prot != page.prot) {
    fail("%llx: protection %d, expected %d", at, static_cast<int>(entry.prot), static_cast<int>(page.prot));
  }
  if (entry.max_prot != page.max_prot) fail("%llx: maximum protection differs", at);
  if (entry.inherit != page.inherit) fail("%llx: inheritance differs", at);
  if (entry.advice != page.advice) fail("%llx: advice differs", at);
  if (entry.wired_count != page.wired_count()) {
    fail("%llx: wired %u times, expected %u", at, entry.wired_count, page.wired_count());
  }
}

void ModelRig::compare_attributes(Process& p) {
  std::size_t pages = 0;
  std::uint64_t bytes = 0;
  p.map->for_each_entry([&](const VmMap::EntryView& entry) {
    if (entry.kind != EntryKind::kGuard) bytes += entry.range.size().value();
    for (VirtAddr va = entry.range.start; va < entry.range.end; va = va + ByteCount{kPageSize}, ++pages) {
      const ModelPage* const page = p.model->find(va);
      if (page == nullptr) return fail("%llx: mapped, but should not be", hex(va));
      compare_page(entry, va.value() >> kPageShift, *page);
    }
  });
  if (pages != p.model->pages().size())
    fail("%zu pages mapped, expected %zu", pages, p.model->pages().size());
  if (bytes != p.map->size().value()) fail("size() is wrong");
}

/// A failed operation may have unwired what it could: memory that is wired no more is no error then.
void ModelRig::take_over_wiring(Process& p) {
  p.map->for_each_entry([&](const VmMap::EntryView& entry) {
    p.model->for_each(entry.range, [&](ModelPage& page) {
      if (entry.wired_count >= page.wired_count()) return;
      page.user_wired = page.user_wired && entry.wired_count != 0;
      page.system_wired = entry.wired_count - (page.user_wired ? 1u : 0u);
      page.stays_resident = page.stays_resident && entry.wired_count != 0;
    });
  });
}

// ---- operations
// --------------------------------------------------------------------------------------------------

KernReturn ModelRig::map(Process& p, const VmMap::MapRequest& request, VirtAddr* address) {
  return map(p, request, Origin{}, address);
}

KernReturn ModelRig::map_file(Process& p, File& file, std::uint64_t first, bool shared,
                              VmMap::MapRequest request) {
  request.object = &file.vnode->object();
  request.offset = PageIndex{first};
  request.shared = shared;
  note("file %td from page %llu on, %s:", &file - files_.data(), static_cast<unsigned long long>(first),
       shared ? "shared" : "private");
  return map(p, request, {file.model, first, shared}, nullptr);
}

KernReturn ModelRig::sync(Process& p, VirtRange range, VmMap::SyncRequest request) {
  const KernReturn expected = p.model->expect_sync(range, request);
  const KernReturn got = p.map->sync(range, request);
  note("%zu: sync %llx-%llx wait %d invalidate %d -> %d", number_of(p), hex(range.start), hex(range.end),
       request.wait ? 1 : 0, request.invalidate ? 1 : 0, code(got));
  (void)same("sync", got, expected);
  compare_attributes(p);
  return got;
}

KernReturn ModelRig::resize(File& file, std::uint64_t bytes) {
  const KernReturn got = file.vnode->resize(ByteCount{bytes});
  note("file %td: length %llu -> %d", &file - files_.data(), static_cast<unsigned long long>(bytes),
       code(got));
  if (same("resize", got, KernReturn::kSuccess)) file.model->resize(bytes);
  return got;
}

KernReturn ModelRig::map(Process& p, const VmMap::MapRequest& request, const Origin& origin,
                         VirtAddr* address) {
  VirtAddr expected_address{0};
  VirtAddr got_address{0};
  const KernReturn expected = p.model->expect_map(request, &expected_address);
  const KernReturn got = p.map->map(request, &got_address);
  note("%zu: map %llx + %llx placement %d kind %d prot %d inherit %d -> %d at %llx", number_of(p),
       hex(request.hint), static_cast<unsigned long long>(request.length.value()),
       static_cast<int>(request.placement), static_cast<int>(request.kind), static_cast<int>(request.prot),
       static_cast<int>(request.inherit), code(got), hex(got_address));
  if (same("map", got, expected)) {
    if (got_address != expected_address) {
      fail("map: placed at %llx, expected %llx", hex(got_address), hex(expected_address));
      return got;
    }
    p.model->map(request, got_address, origin);
    if (address != nullptr) *address = got_address;
  } else {
    take_over_wiring(p);
  }
  compare_attributes(p);
  return got;
}

/// The process's place in the list, for the history.
std::size_t ModelRig::number_of(const Process& p) const {
  return static_cast<std::size_t>(&p - processes_.data());
}

KernReturn ModelRig::remove(Process& p, VirtRange range) {
  const KernReturn expected = p.model->check_range(range);
  const KernReturn got = p.map->remove(range);
  note("%zu: remove %llx-%llx -> %d", number_of(p), hex(range.start), hex(range.end), code(got));
  if (same("remove", got, expected)) {
    p.model->remove(range);
  } else {
    take_over_wiring(p);
  }
  compare_attributes(p);
  return got;
}

KernReturn ModelRig::protect(Process& p, VirtRange range, Prot prot) {
  const KernReturn expected = p.model->expect_protect(range, prot);
  const KernReturn got = p.map->protect(range, prot);
  note("%zu: protect %llx-%llx %d -> %d", number_of(p), hex(range.start), hex(range.end),
       static_cast<int>(prot), code(got));
  if (same("protect", got, expected)) p.model->protect(range, prot);
  // Wired memory that becomes writable is copied; where that cannot be done it is wired no more.
  if (config_.memory_may_end()) take_over_wiring(p);
  compare_attributes(p);
  return got;
}

KernReturn ModelRig::inherit(Process& p, VirtRange range, Inherit how) {
  const KernReturn expected = p.model->check_range(range);
  const KernReturn got = p.map->inherit(range, how);
  note("%zu: inherit %llx-%llx %d -> %d", number_of(p), hex(range.start), hex(range.end),
       static_cast<int>(how), code(got));
  if (same("inherit", got, expected)) p.model->inherit(range, how);
  compare_attributes(p);
  return got;
}

KernReturn ModelRig::advise(Process& p, VirtRange range, Advice advice) {
  const KernReturn expected = p.model->expect_advise(range, advice);
  const KernReturn got = p.map->advise(range, advice);
  note("%zu: advise %llx-%llx %d -> %d", number_of(p), hex(range.start), hex(range.end),
       static_cast<int>(advice), code(got));
  if (same("advise", got, expected)) p.model->advise(range, advice);
  compare_attributes(p);
  return got;
}

KernReturn ModelRig::wire(Process& p, VirtRange range, WireKind kind) {
  const KernReturn expected = p.model->expect_wire(range);
  const KernReturn got = p.map->wire(range, kind);
  note("%zu: wire %llx-%llx %d -> %d", number_of(p), hex(range.start), hex(range.end), static_cast<int>(kind),
       code(got));
  if (same("wire", got, expected)) p.model->wire(range, kind);
  compare_attributes(p);
  return got;
}

KernReturn ModelRig::unwire(Process& p, VirtRange range, WireKind kind) {
  const KernReturn expected = p.model->expect_unwire(range);
  const KernReturn got = p.map->unwire(range, kind);
  note("%zu: unwire %llx-%llx %d -> %d", number_of(p), hex(range.start), hex(range.end),
       static_cast<int>(kind), code(got));
  // With a hole it unwires what is there, and says so.
  if (same("unwire", got, expected) || (got == expected && got == KernReturn::kInvalidAddress &&
                                        p.model->check_range(range) == KernReturn::kSuccess)) {
    p.model->unwire(range, kind);
  } else {
    take_over_wiring(p);
  }
  compare_attributes(p);
  return got;
}

KernReturn ModelRig::remap(Process& p, VirtRange from, VirtRange to, bool keep_source) {
  const KernReturn expected = p.model->expect_remap(from, to, keep_source);
  const KernReturn got = p.map->remap(from, to, keep_source);
  note("%zu: remap %llx-%llx to %llx-%llx keep %d -> %d", number_of(p), hex(from.start), hex(from.end),
       hex(to.start), hex(to.end), keep_source ? 1 : 0, code(got));
  if (same("remap", got, expected)) {
    p.model->remap(from, to, keep_source);
  } else {
    take_over_wiring(p);
  }
  compare_attributes(p);
  return got;
}

std::size_t ModelRig::fork(std::size_t parent) {
  Process child;
  child.map = processes_[parent].map->fork();
  note("fork of %zu -> %s", parent, child.map == nullptr ? "failed" : "ok");
  compare_attributes(processes_[parent]);
  if (child.map == nullptr) {
    ++accepted_.failed_fork;
    if (!config_.memory_may_end()) fail("fork failed without a reason");
    return npos;
  }
  child.model = processes_[parent].model->fork();
  for (auto& [number, page] :
       processes_[parent].model->pages()) {  // the limit that ModelMap::wire() tells of
    if (page.inherit == Inherit::kShare && !page.writable()) page.stays_resident = false;
  }
  processes_.push_back(std::move(child));
  compare_attributes(processes_.back());
  return processes_.size() - 1;
}

void ModelRig::share(std::size_t i) {
  note("rfork of %zu", i);
  processes_.push_back(processes_[i]);
}

void ModelRig::exit(std::size_t i) {
  note("exit of %zu", i);
  processes_.erase(processes_.begin() + static_cast<std::ptrdiff_t>(i));
}

// ---- accesses
// ----------------------------------------------------------------------------------------------------

/// Is this the right answer to an access? True when the access has succeeded and should have.
bool ModelRig::access_verdict(const char* what, FaultResult got, const ModelPage* page, Access access) {
  const bool mapped = page != nullptr && page->kind == EntryKind::kObject;
  const bool allowed = mapped && (access == Access::kWrite ? page->writable() : page->readable());
  const FaultResult expected = !mapped                          ? FaultResult::kNotMapped
                               : !allowed                       ? FaultResult::kProtection
                               : page->content->out_of_bounds() ? FaultResult::kOutOfBounds
                                                                : FaultResult::kResolved;
  if (got == expected) return got == FaultResult::kResolved;
  const bool io_error = got == FaultResult::kIoError && config_.io_errors;
  const bool no_memory = got == FaultResult::kNoMemory && config_.memory_may_end();
  if (io_error) ++accepted_.fault_io_error;
  if (no_memory) ++accepted_.fault_no_memory;
  if (!allowed || !(io_error || no_memory)) {
    fail("%s: fault result %d, expected %d", what, static_cast<int>(got), static_cast<int>(expected));
  }
  return false;
}

/// One access, with a limit to how often the same one may fault.
FaultResult ModelRig::touch(Process& p, VirtAddr page, Access access, FunctionRef<void(std::byte*)> use) {
  constexpr int kMostFaults = 200;
  auto& pmap = static_cast<SoftPmap&>(p.map->pmap());
  for (int i = 0; i < kMostFaults; ++i) {
    if (pmap.access(page, access, use)) return FaultResult::kResolved;
    const FaultResult result = vm_fault(*p.map, page, access);
    if (result != FaultResult::kResolved) return result;
  }
  fail("access at %llx faults for ever, each fault is resolved", hex(page));
  return FaultResult::kNotMapped;
}

/// Compares what was read. A page whose contents were given up may have turned to zeros; then it stays so.
void ModelRig::compare_words(const char* what, VirtAddr page, Content& content, const Content& seen) {
  const Words& expected = content.seen();
  if (seen.words == expected) return;
  if (content.may_be_zero && is_zero(seen.words)) {
    content.words = {};
    content.may_be_zero = false;
    return;
  }
  for (std::size_t i = 0; i < kWords; ++i) {
    if (seen.words[i] == expected[i]) continue;
    fail("%s: page %llx word %zu is %llx, expected %llx", what, hex(page), i,
         static_cast<unsigned long long>(seen.words[i]), static_cast<unsigned long long>(expected[i]));
  }
}

FaultResult ModelRig::load(Process& p, VirtAddr page, std::size_t word) {
  Content seen;
  const FaultResult got = touch(p, page, Access::kRead, [&](std::byte* bytes) {
    for (std::size_t i = 0; i < kWords; ++i) std::memcpy(&seen.words[i], bytes + word_offset(i), 8);
  });
  note("%zu: load %llx word %zu -> %d, %llx", number_of(p), hex(page), word, static_cast<int>(got),
       static_cast<unsigned long long>(seen.words[word]));
  ModelPage* const expected = p.model->find(page);
  if (access_verdict("load", got, expected, Access::kRead)) {
    compare_words("load", page, *expected->content, seen);
  }
  return got;
}

FaultResult ModelRig::check_page(Process& p, VirtAddr page) {
  Content seen;
  bool clean = true;
  const FaultResult got = touch(p, page, Access::kRead, [&](std::byte* bytes) {
    std::array<std::byte, kPageSize> copy;
    std::memcpy(copy.data(), bytes, kPageSize);
    for (std::size_t i = 0; i < kWords; ++i) {
      std::memcpy(&seen.words[i], copy.data() + word_offset(i), 8);
      std::memset(copy.data() + word_offset(i), 0, 8);
    }
    clean = copy[0] == std::byte{0} && std::memcmp(copy.data(), copy.data() + 1, kPageSize - 1) == 0;
  });
  ModelPage* const expected = p.model->find(page);
  if (access_verdict("check", got, expected, Access::kRead)) {
    compare_words("check", page, *expected->content, seen);
    if (!clean) fail("page %llx: bytes that nobody stored", hex(page));
  }
  return got;
}

FaultResult ModelRig::store(Process& p, VirtAddr page, std::size_t word, std::uint64_t value) {
  ModelPage* const expected = p.model->find(page);
  if (expected != nullptr && expected->content->from.shared) {  // behind a file's end it may last or not
    const Origin& from = expected->content->from;
    if (to_bytes(PageCount{from.page}).value() + word_offset(word) >= from.file->length) word = 0;
  }
  // A store ends the time in which the page's contents may vanish: which of the two it is must be seen
  // before.
  if (expected != nullptr && expected->writable() && expected->content->may_be_zero)
    (void)load(p, page, word);
  Content seen;
  const FaultResult got = touch(p, page, Access::kWrite, [&](std::byte* bytes) {
    for (std::size_t i = 0; i < kWords; ++i) std::memcpy(&seen.words[i], bytes + word_offset(i), 8);
    std::memcpy(bytes + word_offset(word), &value, 8);
  });
  note("%zu: store %llx word %zu = %llx -> %d", number_of(p), hex(page), word,
       static_cast<unsigned long long>(value), static_cast<int>(got));
  if (access_verdict("store", got, expected, Access::kWrite)) {
    compare_words("store", page, *expected->content, seen);
    expected->content->stored()[word] = value;
    expected->content->may_be_zero = false;
  }
  return got;
}

// ---- checks
// ------------------------------------------------------------------------------------------------------

void ModelRig::check_all_contents() {
  for (std::size_t i = 0; i < processes_.size() && ok(); ++i) {
    for (auto& [number, page] : processes_[i].model->pages()) {
      if (page.readable()) (void)check_page(processes_[i], VirtAddr{number << kPageShift});
    }
    if (!ok()) note("... in process %zu", i);
  }
}

/// A wired page is resident. Its mapping may have gone when another space copied the page (the copy must
/// replace it in all spaces that share the copying object); then one soft fault brings it back.
void ModelRig::check_wired() {
  const VmCounters& c = engine_.machine().counters();
  const auto work = [&] {
    return c.zfod.load() + c.cow_faults.load() + c.cow_optim.load() + c.io_faults.load();
  };
  for (Process& p : processes_) {
    auto& pmap = static_cast<SoftPmap&>(p.map->pmap());
    for (auto& [number, page] : p.model->pages()) {
      if (!page.stays_resident || !page.readable()) continue;
      const VirtAddr va{number << kPageShift};
      if (pmap.access(va, Access::kRead, [](std::byte*) {})) continue;
      const std::uint64_t before = work();
      const FaultResult result = vm_fault(*p.map, va, Access::kRead);
      if (result != FaultResult::kResolved || work() != before)
        fail("%llx is wired, but not resident", hex(va));
    }
  }
}

void ModelRig::validate() {
  std::vector<VmMap*> maps;
  for (const Process& p : processes_) {
    if (std::find(maps.begin(), maps.end(), p.map.get()) == maps.end()) maps.push_back(p.map.get());
  }
  const Problems problems = find_problems({.system = engine_.system(),
                                           .maps = maps,
                                           .pmaps = &engine_.machine().pmaps(),
                                           .pager = &engine_.pager(),
                                           .space = &engine_.space()});
  for (const std::string& problem : problems) {
    note("problem: %s", problem.c_str());
    fail("%s", problem.c_str());
  }
}

void ModelRig::check_nothing_left() {
  processes_.clear();
  close_files();
  validate();
  VmSystem& system = engine_.system();
  if (system.objects().live() != 0) fail("%zu objects are left", system.objects().live());
  if (engine_.space().used() != engine_.pager().given_up()) fail("swap blocks are left");
  if (engine_.compressed() != nullptr && !engine_.compressed()->verify())
    fail("the compressed store is broken");
  // Frames that were pinned when their page died are freed by the next reclaim that needs some.
  const std::uint64_t free = system.free_frames().free_count() + system.queues().length(PageQueue::kLimbo);
  const std::uint64_t granted = system.free_frames().granted();
  if (free != granted) {
    fail("%llu frames are free of %llu", static_cast<unsigned long long>(free),
         static_cast<unsigned long long>(granted));
  }
  if (granted != engine_.machine().memory().granted().value())
    fail("machine and engine differ about granted frames");
  if (engine_.machine().pmaps().pv_entries() != 0) fail("pv entries are left");
}

}  // namespace enchilada::model
