// HostFile under the file pager: a real file, mapped by a simulated machine.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "pager/host_file.h"
#include "support/soft_rig.h"

namespace enchilada::test {
namespace {

class TemporaryFile {
 public:
  TemporaryFile() : descriptor_(mkstemp(name_.data())) { EXPECT_GE(descriptor_, 0); }
  ~TemporaryFile() {
    close(descriptor_);
    unlink(name_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  [[nodiscard]] int descriptor() const { return descriptor_; }

 private:
  std::string name_ = testing::TempDir() + "enchilada_file_XXXXXX";
  int descriptor_;
};

TEST(HostFile, AMappedFileIsReadWrittenAndCut) {
  TemporaryFile file;
  const std::string text = "the whole enchilada";
  ASSERT_EQ(pwrite(file.descriptor(), text.data(), text.size(), 3 * kPageSize),
            static_cast<ssize_t>(text.size()));
  auto store = HostFile::attach(file.descriptor());
  ASSERT_TRUE(store.has_value());
  SoftRig rig;
  auto vnode = VmFile::open(rig.engine.system(), rig.engine.file_pager(), *store);
  auto& a = rig.spawn();
  const VirtAddr at = rig.map(a, vnode->mapping(ByteCount{0}, to_bytes(8_pages), true));
  std::string seen(text.size(), ' ');
  ASSERT_EQ(
      rig.engine.machine().load(a, at + to_bytes(3_pages), std::as_writable_bytes(std::span(seen))).result,
      FaultResult::kResolved);
  EXPECT_EQ(seen, text);
  EXPECT_EQ(rig.try_read(a, at + to_bytes(4_pages)), FaultResult::kOutOfBounds);
  ASSERT_EQ(rig.write(a, at, 0x41424344), FaultResult::kResolved);
  ASSERT_EQ(rig.write(a, at + to_bytes(4_pages) - ByteCount{8}, 1), FaultResult::kResolved);
  EXPECT_EQ(vnode->sync(), KernReturn::kSuccess);
  struct stat status {};
  ASSERT_EQ(fstat(file.descriptor(), &status), 0);
  EXPECT_EQ(status.st_size, static_cast<off_t>(3 * kPageSize + text.size())) << "never beyond the end";
  char head[4];
  ASSERT_EQ(pread(file.descriptor(), head, 4, 0), 4);
  EXPECT_EQ(std::string(head, 4), "DCBA");
  EXPECT_EQ(vnode->resize(to_bytes(1_pages)), KernReturn::kSuccess);
  ASSERT_EQ(fstat(file.descriptor(), &status), 0);
  EXPECT_EQ(status.st_size, static_cast<off_t>(kPageSize));
  rig.check();
}

TEST(HostFile, AFileThatCannotBeWrittenKeepsItsPagesDirtyInMemory) {
  TemporaryFile file;
  ASSERT_EQ(ftruncate(file.descriptor(), kPageSize), 0);
  const int read_only = open(("/proc/self/fd/" + std::to_string(file.descriptor())).c_str(), O_RDONLY);
  ASSERT_GE(read_only, 0);
  {
    auto store = HostFile::attach(read_only);
    ASSERT_TRUE(store.has_value());
    SoftRig rig;
    auto vnode = VmFile::open(rig.engine.system(), rig.engine.file_pager(), *store);
    auto& a = rig.spawn();
    const VirtAddr at = rig.map(a, vnode->mapping(ByteCount{0}, to_bytes(1_pages), true));
    ASSERT_EQ(rig.write(a, at, 1), FaultResult::kResolved);
    EXPECT_EQ(vnode->sync(), KernReturn::kFailure);
    EXPECT_EQ(vnode->resize(to_bytes(2_pages)), KernReturn::kFailure);
    EXPECT_EQ(rig.read(a, at), 1u);
    EXPECT_EQ(vnode->size(), to_bytes(1_pages));
    rig.check();
  }
  close(read_only);
}

}  // namespace
}  // namespace enchilada::test
