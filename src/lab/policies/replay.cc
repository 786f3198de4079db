// The registry of policies, and the loop that everything is measured by. Invariants: see replay.h.
#include "lab/policies/replay.h"

#include <ctime>

#include "base/check.h"
#include "lab/policies/clock_pro.h"
#include "lab/policies/freebsd_queues.h"
#include "lab/policies/linux24.h"
#include "lab/policies/linux26.h"
#include "lab/policies/mglru.h"
#include "lab/policies/opt.h"
#include "lab/policies/simple_policies.h"

namespace enchilada::lab {
namespace {

/// So many references ahead a page's state is fetched into the cache: a replay waits for little else.
constexpr std::size_t kAhead = 16;

/// The thread's own time, which others on the machine do not lengthen.
double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

template <ReplacementPolicy P>
ReplayResult replay_as(const Trace& trace, const PolicyOptions& options, MissLog* log) {
  CHECK(options.frames > 0 && trace.pages < kNoPage, options.frames);
  P policy(trace, options);
  ReplayResult result;
  result.refs = trace.refs.size();
  const Reference* const refs = trace.refs.data();
  const std::size_t n = trace.refs.size();
  const double start = cpu_seconds();
  for (std::size_t i = 0; i < n; ++i) {
    policy.prefetch(refs[i + kAhead < n ? i + kAhead : i].page());
    const bool hit = policy.touch(refs[i], result.counts);
    result.misses += hit ? 0 : 1;
    if (log != nullptr) log->push_back(!hit);
  }
  result.seconds = cpu_seconds() - start;
  return result;
}

constexpr PolicyEntry kPolicies[] = {
    {"opt", "1966", "the page whose next use is farthest goes: no policy misses less", replay_as<Opt>},
    {"lru", "", "the page that was used longest ago goes", replay_as<Lru>},
    {"clock", "1968", "frames in a circle; a page that was used is spared once", replay_as<Clock>},
    {"fifo", "", "the page that came first goes", replay_as<Fifo>},
    {"random", "", "any page goes", replay_as<Random>},
    {"freebsd", "2000", "active, inactive and cache queues; a count of use that falls by one a scan",
     replay_as<FreeBsdQueues>},
    {"linux-2.4.0", "2001", "three lists; an age that is halved; bits from walking page tables",
     replay_as<Linux240>},
    {"linux-2.4.10", "2001", "two lists, no age; bits from walking page tables", replay_as<Linux2410>},
    {"linux-2.6", "2005", "two lists over the reverse map; new pages are active", replay_as<Linux26<false>>},
    {"linux-refault", "2020", "two lists; new pages are inactive, early refaults active",
     replay_as<Linux26<true>>},
    {"mglru", "2022", "four generations; walks for ageing, the reverse map and its neighbours for evicting",
     replay_as<Mglru>},
    {"clock-pro", "2005", "hot and cold pages and records of those gone, three hands", replay_as<ClockPro>},
};

}  // namespace

std::span<const PolicyEntry> policies() {
  return kPolicies;
}

const PolicyEntry* find_policy(std::string_view name) {
  for (const PolicyEntry& entry : kPolicies) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

ReplayResult replay(std::string_view policy, const Trace& trace, const PolicyOptions& options, MissLog* log) {
  const PolicyEntry* const entry = find_policy(policy);
  CHECK(entry != nullptr);
  return entry->replay(trace, options, log);
}

}  // namespace enchilada::lab
