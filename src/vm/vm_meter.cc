// The table of counters: the one list that exporters, the summary and the tree's totals read.
#include "vm/vm_meter.h"

namespace enchilada {

const CounterInfo kCounterInfo[] = {
    {"vm_faults", &VmCounters::vm_faults, false},
    {"zfod", &VmCounters::zfod, false},
    {"zfod_pages", &VmCounters::zfod_pages, false},
    {"cow_faults", &VmCounters::cow_faults, false},
    {"cow_optim", &VmCounters::cow_optim, false},
    {"io_faults", &VmCounters::io_faults, false},
    {"soft_faults", &VmCounters::soft_faults, false},
    {"reactivated", &VmCounters::reactivated, false},
    {"intrans", &VmCounters::intrans, false},
    {"fault_restarts", &VmCounters::fault_restarts, false},
    {"fault_errors", &VmCounters::fault_errors, false},
    {"prefaulted", &VmCounters::prefaulted, false},
    {"swapin", &VmCounters::swapin, false},
    {"swappgsin", &VmCounters::swappgsin, false},
    {"swapout", &VmCounters::swapout, false},
    {"swappgsout", &VmCounters::swappgsout, false},
    {"swap_clean", &VmCounters::swap_clean, false},
    {"swap_behind", &VmCounters::swap_behind, false},
    {"swap_unread", &VmCounters::swap_unread, false},
    {"regrouped", &VmCounters::regrouped, false},
    {"readahead_pages", &VmCounters::readahead_pages, false},
    {"readahead_hits", &VmCounters::readahead_hits, false},
    {"io_errors", &VmCounters::io_errors, false},
    {"pdwakeups", &VmCounters::pdwakeups, false},
    {"pdpages", &VmCounters::pdpages, false},
    {"deactivated", &VmCounters::deactivated, false},
    {"dfree", &VmCounters::dfree, false},
    {"laundered", &VmCounters::laundered, false},
    {"pdrefused", &VmCounters::pdrefused, false},
    {"pdshortfalls", &VmCounters::pdshortfalls, false},
    {"object_collapses", &VmCounters::object_collapses, false},
    {"object_bypasses", &VmCounters::object_bypasses, false},
    {"object_shadows", &VmCounters::object_shadows, false},
    {"granted", &VmCounters::granted, true},
    {"free_count", &VmCounters::free_count, true},
    {"active_count", &VmCounters::active_count, true},
    {"inactive_count", &VmCounters::inactive_count, true},
    {"laundry_count", &VmCounters::laundry_count, true},
    {"cache_count", &VmCounters::cache_count, true},
    {"wire_count", &VmCounters::wire_count, true},
    {"peak_resident", &VmCounters::peak_resident, true},
    {"metadata_bytes", &VmCounters::metadata_bytes, true},
};
const std::size_t kCounterInfoCount = sizeof(kCounterInfo) / sizeof(kCounterInfo[0]);

}  // namespace enchilada
