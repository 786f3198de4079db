// PageCodec: how a page is packed for the compressed store (CompressionMode).
//
// A codec has no state of its own; what it needs while it works lies in workspaces that the user sets aside,
// one for each thread that packs or unpacks at a time. Nothing is allocated, everything is legal in a signal
// handler. What one codec packed only the same one unpacks: all processes of a tree use the same.
#pragma once

#include <cstddef>
#include <span>

#include "base/units.h"
#include "vm/vm_modes.h"

namespace enchilada {

class PageCodec {
 public:
  /// Bytes of a workspace, aligned to 64.
  [[nodiscard]] virtual std::size_t pack_bytes() const = 0;
  [[nodiscard]] virtual std::size_t unpack_bytes() const = 0;
  /// Makes a workspace usable; what pack() and unpack() want to get.
  [[nodiscard]] virtual void* prepare_pack(void* workspace) const = 0;
  [[nodiscard]] virtual void* prepare_unpack(void* workspace) const = 0;
  /// Packs a page; returns how many bytes of `to` it took, 0: more than there are.
  [[nodiscard]] virtual std::size_t pack(void* state, const std::byte* page,
                                         std::span<std::byte> to) const = 0;
  /// False: these bytes are not a packed page.
  [[nodiscard]] virtual bool unpack(void* state, std::span<const std::byte> packed,
                                    std::byte* page) const = 0;

 protected:
  ~PageCodec() = default;
};

/// The mode's codec.
[[nodiscard]] const PageCodec& page_codec(CompressionMode mode);

}  // namespace enchilada
