// The kernel's userfaultfd ABI, written down here because the build machine's headers may be older than the
// kernel that the program runs on (Debian 12 has 6.1's: no UFFDIO_MOVE). Sources:
// include/uapi/linux/userfaultfd.h.
#pragma once

#include <cstdint>

namespace enchilada::uffd {

inline constexpr std::uint64_t kApi = 0xAA;
inline constexpr int kUserModeOnly =
    1;  // flag of userfaultfd(2): only faults from user mode; needs no privilege

inline constexpr std::uint64_t kFeaturePagefaultFlagWp = 1u << 0;
inline constexpr std::uint64_t kFeatureSigbus = 1u << 7;
inline constexpr std::uint64_t kFeatureMove = 1u << 16;

inline constexpr std::uint64_t kRegisterMissing = 1u << 0;
inline constexpr std::uint64_t kRegisterWp = 1u << 1;
inline constexpr std::uint64_t kCopyWp = 1u << 1;          // mode of Copy: enter write-protected
inline constexpr std::uint64_t kWriteProtectOn = 1u << 0;  // mode of WriteProtect: take write access away

inline constexpr long kSelf =
    -10001;  // instead of a pidfd: the calling process (pidfd.h: PIDFD_SELF_PROCESS)

struct Api {
  std::uint64_t api;
  std::uint64_t features;
  std::uint64_t ioctls;
};
struct Range {
  std::uint64_t start;
  std::uint64_t len;
};
struct Register {
  Range range;
  std::uint64_t mode;
  std::uint64_t ioctls;
};
struct Copy {
  std::uint64_t dst;
  std::uint64_t src;
  std::uint64_t len;
  std::uint64_t mode;
  std::int64_t copy;  // bytes done, or -errno
};
struct Move {
  std::uint64_t dst;
  std::uint64_t src;
  std::uint64_t len;
  std::uint64_t mode;
  std::int64_t move;  // bytes done, or -errno; proves nothing after an error (rule 2)
};
struct WriteProtect {
  Range range;
  std::uint64_t mode;
};

/// _IOWR(0xAA, number, type)
constexpr long request(unsigned number, std::size_t size) {
  return static_cast<long>((3ul << 30) | (size << 16) | (0xAAul << 8) | number);
}
inline constexpr long kIoctlApi = request(0x3F, sizeof(Api));
inline constexpr long kIoctlRegister = request(0x00, sizeof(Register));
inline constexpr long kIoctlCopy = request(0x03, sizeof(Copy));
inline constexpr long kIoctlMove = request(0x05, sizeof(Move));
inline constexpr long kIoctlWriteProtect = request(0x06, sizeof(WriteProtect));

}  // namespace enchilada::uffd
