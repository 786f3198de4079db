// The Python module `enchilada`: Vm, Region (a buffer) and Snapshot over the public C++ API.
//
// Invariants: whoever exports a buffer of a region keeps the Python object, and so the memory, alive; what
// would cut off memory that somebody has a buffer of is refused (BufferError), as bytearray does. The GIL is
// not held while an operation runs or waits for the Vm, so nobody waits for the GIL with a Vm's lock held.
// Nothing here hands a region's memory to a system call: transfers go through a buffer of Python's.
#include <enchilada/enchilada.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

namespace py = pybind11;

namespace {

using enchilada::Error;
using enchilada::ErrorCode;
using enchilada::Expected;

PyObject* exception_for(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kClosed:
    case ErrorCode::kWrongVm:
      return PyExc_ValueError;
    case ErrorCode::kPinned:
      return PyExc_BufferError;
    case ErrorCode::kNoAddressSpace:
    case ErrorCode::kNoMemory:
      return PyExc_MemoryError;
    case ErrorCode::kNotSupported:
    case ErrorCode::kSystem:
      return PyExc_OSError;
  }
  return PyExc_RuntimeError;
}

[[noreturn]] void raise(PyObject* type, const std::string& text) {
  PyErr_SetString(type, text.c_str());
  throw py::error_already_set();
}

/// Runs an operation of the library without the GIL; its error becomes an exception.
template <class Operation>
auto must(Operation operation) {
  auto result = [&] {
    const py::gil_scoped_release others_run;
    return operation();
  }();
  if (!result) raise(exception_for(result.error().code), result.error().message);
  return std::move(result).value();
}

class PyRegion;

struct PySnapshot {
  enchilada::Snapshot snapshot;
};

struct PyVm {
  enchilada::Vm vm;
};

/// A region, and how many buffers of it are out.
class PyRegion {
 public:
  explicit PyRegion(enchilada::Region region) : region_(std::move(region)) {}

  [[nodiscard]] enchilada::Region& region() { return region_; }
  [[nodiscard]] std::byte* data() const { return region_.data(); }
  [[nodiscard]] std::uint64_t size() const { return region_.size(); }

  void rollback(const PySnapshot& mark) {
    refuse_to_cut("rollback", mark.snapshot.size());
    must([&] { return region_.rollback(mark.snapshot); });
  }
  void resize(std::uint64_t bytes) {
    refuse_to_cut("resize", bytes);
    must([&] { return region_.resize(bytes); });
  }

  /// What [offset, offset + size) means here; the rest of the region when there is no size.
  [[nodiscard]] std::uint64_t length_of(std::uint64_t offset, std::optional<std::uint64_t> size) const {
    if (offset > this->size() || size.value_or(0) > this->size() - offset) {
      raise(PyExc_ValueError, "offset " + std::to_string(offset) + " and size " +
                                  std::to_string(size.value_or(0)) + " are not inside a region of " +
                                  std::to_string(this->size()) + " bytes");
    }
    return size.value_or(this->size() - offset);
  }

  // The buffer protocol.
  static int get_buffer(PyObject* self, Py_buffer* view, int flags) {
    auto& region = py::handle(self).cast<PyRegion&>();
    const int result = PyBuffer_FillInfo(view, self, region.data(), static_cast<Py_ssize_t>(region.size()),
                                         /*readonly=*/0, flags);
    if (result == 0) ++region.buffers_;
    return result;
  }
  static void release_buffer(PyObject* self, Py_buffer*) { --py::handle(self).cast<PyRegion&>().buffers_; }

 private:
  void refuse_to_cut(const char* what, std::uint64_t bytes) const {
    if (buffers_ != 0 && bytes < size()) {
      raise(PyExc_BufferError,
            std::string(what) + ": the region would become smaller while arrays or memoryviews use it");
    }
  }

  enchilada::Region region_;
  std::uint64_t buffers_ = 0;  // under the GIL
};

/// `with region.pinned(...)`: system calls may use the range inside.
class Pinned {
 public:
  Pinned(py::object region, std::uint64_t offset, std::uint64_t bytes)
      : region_(std::move(region)), offset_(offset), bytes_(bytes) {}
  void enter() {
    must([at = region_.cast<PyRegion*>(), this] { return at->region().pin(offset_, bytes_); });
  }
  void exit(const py::args&) {
    must([at = region_.cast<PyRegion*>(), this] { return at->region().unpin(offset_, bytes_); });
  }

 private:
  py::object region_;
  std::uint64_t offset_;
  std::uint64_t bytes_;
};

constexpr std::uint64_t kPiece = std::uint64_t{1} << 20;

/// Copies without the GIL: each page may be a fault, and a fault may be a disk read.
void copy(void* to, const void* from, std::uint64_t bytes) {
  const py::gil_scoped_release others_run;
  std::memcpy(to, from, bytes);
}

std::uint64_t read_from(PyRegion& region, const py::object& file, std::uint64_t offset,
                        std::optional<std::uint64_t> size) {
  const std::uint64_t wanted = region.length_of(offset, size);
  const py::bytearray buffer(std::string(std::min(wanted, kPiece), '\0'));
  std::uint64_t done = 0;
  while (done < wanted) {
    const py::object part =
        py::memoryview(buffer)[py::slice(0, static_cast<py::ssize_t>(std::min(wanted - done, kPiece)), 1)];
    const py::object read = file.attr("readinto")(part);
    const std::uint64_t n = read.is_none() ? 0 : read.cast<std::uint64_t>();
    if (n == 0) break;
    if (n > std::min(wanted - done, kPiece))
      raise(PyExc_ValueError, "readinto() says it read more than there is room for");
    copy(region.data() + offset + done, PyByteArray_AsString(buffer.ptr()), n);
    done += n;
  }
  return done;
}

std::uint64_t write_to(PyRegion& region, const py::object& file, std::uint64_t offset,
                       std::optional<std::uint64_t> size) {
  const std::uint64_t wanted = region.length_of(offset, size);
  const py::bytearray buffer(std::string(std::min(wanted, kPiece), '\0'));
  std::uint64_t done = 0;
  while (done < wanted) {
    const std::uint64_t piece = std::min(wanted - done, kPiece);
    copy(PyByteArray_AsString(buffer.ptr()), region.data() + offset + done, piece);
    const py::object part = py::memoryview(buffer)[py::slice(0, static_cast<py::ssize_t>(piece), 1)];
    const py::object written = file.attr("write")(part);
    const std::uint64_t n = written.is_none() ? 0 : written.cast<std::uint64_t>();  // None: it would block
    if (n == 0 || n > piece) break;
    done += n;
  }
  return done;
}

/// A NumPy array over the region; all of it when there is no shape.
py::object array_of(const py::object& region, const py::object& shape, const py::object& dtype,
                    std::uint64_t offset) {
  const py::module_ numpy = py::module_::import("numpy");
  if (shape.is_none()) return numpy.attr("frombuffer")(region, dtype, -1, offset);
  using namespace py::literals;
  return numpy.attr("ndarray")(shape, dtype, "buffer"_a = region, "offset"_a = offset);
}

py::dict statistics_of(PyVm& self) {
  const enchilada::VmStatistics all = must([&] { return self.vm.statistics(); });
  py::dict words;
  words["ram_bytes"] = all.ram_bytes;
  words["resident_bytes"] = all.resident_bytes;
  words["swap_used_bytes"] = all.swap_used_bytes;
  words["swap_bytes"] = all.swap_bytes;
  words["metadata_bytes"] = all.metadata_bytes;
  words["objects"] = all.objects;
  py::dict counters;
  for (const auto& [name, value] : all.counters) counters[name.c_str()] = value;
  words["counters"] = counters;
  return words;
}

py::dict statistics_of_region(PyRegion& self) {
  const enchilada::RegionStatistics all = must([&] { return self.region().statistics(); });
  py::dict words;
  words["bytes"] = all.bytes;
  words["capacity"] = all.capacity;
  words["mapped_bytes"] = all.mapped_bytes;
  words["entries"] = all.entries;
  words["depth"] = all.depth;
  return words;
}

py::list diff_of(PyRegion& self, const PySnapshot& mark) {
  const auto changes = must([&] { return self.region().diff(mark.snapshot); });
  py::list ranges;
  for (const enchilada::PageRange& change : changes)
    ranges.append(py::make_tuple(change.offset, change.bytes));
  return ranges;
}

std::unique_ptr<PyVm> make_vm(std::uint64_t ram,
                              const std::optional<std::vector<std::pair<std::string, std::uint64_t>>>& swap,
                              const std::vector<std::string>& settings) {
  enchilada::VmOptions options;
  options.ram_bytes = ram;
  options.settings = settings;
  if (swap) {
    options.swap.clear();
    for (const auto& [directory, bytes] : *swap) options.swap.push_back({directory, bytes});
  }
  return std::make_unique<PyVm>(PyVm{must([&] { return enchilada::Vm::create(options); })});
}

std::unique_ptr<PyRegion> own(enchilada::Region region) {
  return std::make_unique<PyRegion>(std::move(region));
}

void define_helpers(py::module_& module) {
  py::enum_<enchilada::Region::Advice>(module, "Advice")
      .value("NORMAL", enchilada::Region::Advice::kNormal)
      .value("SEQUENTIAL", enchilada::Region::Advice::kSequential)
      .value("RANDOM", enchilada::Region::Advice::kRandom)
      .value("WILL_NEED", enchilada::Region::Advice::kWillNeed)
      .value("DONT_NEED", enchilada::Region::Advice::kDontNeed);
  py::class_<Pinned>(module, "Pinned", "A context in which system calls may use a range of a region.")
      .def("__enter__", &Pinned::enter)
      .def("__exit__", &Pinned::exit);
}

void define_region(py::module_& module) {
  py::class_<PyRegion>(module, "Region", "Managed memory at a fixed address; a writable buffer of bytes.",
                       py::custom_type_setup([](PyHeapTypeObject* type) {
                         type->ht_type.tp_as_buffer = &type->as_buffer;
                         type->as_buffer.bf_getbuffer = PyRegion::get_buffer;
                         type->as_buffer.bf_releasebuffer = PyRegion::release_buffer;
                       }))
      .def("__len__", &PyRegion::size)
      .def_property_readonly(
          "address", [](const PyRegion& self) { return reinterpret_cast<std::uintptr_t>(self.data()); },
          "The address of the first byte.")
      .def("array", &array_of, py::arg("shape") = py::none(), py::arg("dtype") = "u1", py::arg("offset") = 0,
           "A NumPy array over the region, without a copy; all of the region when there is no shape.")
      .def(
          "fork", [](PyRegion& self) { return own(must([&] { return self.region().fork(); })); },
          "A second region with the same contents, copy-on-write both ways.")
      .def(
          "snapshot",
          [](PyRegion& self) {
            return std::make_unique<PySnapshot>(PySnapshot{must([&] { return self.region().snapshot(); })});
          },
          "Marks the contents; copies nothing.")
      .def("rollback", &PyRegion::rollback, py::arg("snapshot"),
           "Back to what the snapshot holds; arrays over the region see it at once.")
      .def("diff", &diff_of, py::arg("snapshot"),
           "[(offset, bytes), ...] of the pages written or discarded since the snapshot.")
      .def(
          "advise",
          [](PyRegion& self, enchilada::Region::Advice advice, std::uint64_t offset,
             std::optional<std::uint64_t> size) {
            const std::uint64_t bytes = self.length_of(offset, size);
            must([&] { return self.region().advise(offset, bytes, advice); });
          },
          py::arg("advice"), py::arg("offset") = 0, py::arg("size") = py::none())
      .def(
          "discard",
          [](PyRegion& self, std::uint64_t offset, std::optional<std::uint64_t> size) {
            const std::uint64_t bytes = self.length_of(offset, size);
            must([&] { return self.region().discard(offset, bytes); });
          },
          py::arg("offset") = 0, py::arg("size") = py::none(),
          "The range becomes zeros; its memory is freed.")
      .def("resize", &PyRegion::resize, py::arg("size"))
      .def(
          "pinned",
          [](const py::object& self, std::uint64_t offset, std::optional<std::uint64_t> size) {
            return Pinned(self, offset, self.cast<PyRegion&>().length_of(offset, size));
          },
          py::arg("offset") = 0, py::arg("size") = py::none(),
          "`with region.pinned(offset, size):` system calls may use the range inside.")
      .def("read_from", &read_from, py::arg("file"), py::arg("offset") = 0, py::arg("size") = py::none(),
           "Fills the region from a binary file object until it is full or the file ends; how many bytes.")
      .def("write_to", &write_to, py::arg("file"), py::arg("offset") = 0, py::arg("size") = py::none(),
           "Writes the region to a binary file object; how many bytes.")
      .def("statistics", &statistics_of_region);
}

}  // namespace

PYBIND11_MODULE(enchilada, module) {
  module.doc() = "Memory larger than RAM, and regions of memory that fork, snapshot and roll back.";
  define_helpers(module);
  define_region(module);
  py::class_<PySnapshot>(module, "Snapshot", "The contents of a region at one moment.")
      .def("__len__", [](const PySnapshot& self) { return self.snapshot.size(); })
      .def(
          "branch", [](PySnapshot& self) { return own(must([&] { return self.snapshot.branch(); })); },
          "A new region with these contents.");
  py::class_<PyVm>(module, "Vm", "A VM system of one's own: a RAM budget, swap, and the regions in them.")
      .def(py::init(&make_vm), py::arg("ram") = std::uint64_t{256} << 20, py::arg("swap") = py::none(),
           py::arg("settings") = std::vector<std::string>{},
           "ram: bytes. swap: [(directory, bytes), ...], [] for none, None for one file in /var/tmp.")
      .def(
          "map",
          [](PyVm& self, std::uint64_t size, std::uint64_t capacity) {
            return own(must([&] { return self.vm.map(size, {.capacity = capacity}); }));
          },
          py::arg("size"), py::arg("capacity") = 0, "A region of zeros.")
      .def("statistics", &statistics_of);
}
