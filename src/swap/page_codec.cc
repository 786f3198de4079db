// The codecs: LZ4 (a page in about half a microsecond each way) and zstd's fastest level (a third smaller,
// and several times slower).
#include "swap/page_codec.h"

#include <lz4.h>
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "base/check.h"

namespace enchilada {
namespace {

class Lz4Codec final : public PageCodec {
 public:
  [[nodiscard]] std::size_t pack_bytes() const override {
    return static_cast<std::size_t>(LZ4_sizeofState());
  }
  [[nodiscard]] std::size_t unpack_bytes() const override { return 0; }
  [[nodiscard]] void* prepare_pack(void* workspace) const override { return workspace; }
  [[nodiscard]] void* prepare_unpack(void* workspace) const override { return workspace; }
  [[nodiscard]] std::size_t pack(void* state, const std::byte* page, std::span<std::byte> to) const override {
    const int size = LZ4_compress_fast_extState(state, reinterpret_cast<const char*>(page),
                                                reinterpret_cast<char*>(to.data()), kPageSize,
                                                static_cast<int>(to.size()), 1);
    return size > 0 ? static_cast<std::size_t>(size) : 0;
  }
  [[nodiscard]] bool unpack(void*, std::span<const std::byte> packed, std::byte* page) const override {
    return LZ4_decompress_safe(reinterpret_cast<const char*>(packed.data()), reinterpret_cast<char*>(page),
                               static_cast<int>(packed.size()), kPageSize) == kPageSize;
  }
};

/// Static contexts (zstd.h: ZSTD_initStatic*), which never allocate; frames without magic number and size.
class ZstdCodec final : public PageCodec {
 public:
  [[nodiscard]] std::size_t pack_bytes() const override {
    return ZSTD_estimateCCtxSize_usingCParams(ZSTD_getCParams(kLevel, kPageSize, 0));
  }
  [[nodiscard]] std::size_t unpack_bytes() const override { return ZSTD_estimateDCtxSize(); }
  [[nodiscard]] void* prepare_pack(void* workspace) const override {
    ZSTD_CCtx* const context = ZSTD_initStaticCCtx(workspace, pack_bytes());
    CHECK(context != nullptr);
    set(context, ZSTD_c_compressionLevel, kLevel);
    set(context, ZSTD_c_format, ZSTD_f_zstd1_magicless);
    set(context, ZSTD_c_contentSizeFlag, 0);
    return context;
  }
  [[nodiscard]] void* prepare_unpack(void* workspace) const override {
    ZSTD_DCtx* const context = ZSTD_initStaticDCtx(workspace, unpack_bytes());
    CHECK(context != nullptr);
    CHECK(ZSTD_isError(ZSTD_DCtx_setParameter(context, ZSTD_d_format, ZSTD_f_zstd1_magicless)) == 0);
    return context;
  }
  [[nodiscard]] std::size_t pack(void* state, const std::byte* page, std::span<std::byte> to) const override {
    const std::size_t size =
        ZSTD_compress2(static_cast<ZSTD_CCtx*>(state), to.data(), to.size(), page, kPageSize);
    return ZSTD_isError(size) != 0 ? 0 : size;
  }
  [[nodiscard]] bool unpack(void* state, std::span<const std::byte> packed, std::byte* page) const override {
    return ZSTD_decompressDCtx(static_cast<ZSTD_DCtx*>(state), page, kPageSize, packed.data(),
                               packed.size()) == kPageSize;
  }

 private:
  static constexpr int kLevel = 1;
  static void set(ZSTD_CCtx* context, ZSTD_cParameter what, int value) {
    CHECK(ZSTD_isError(ZSTD_CCtx_setParameter(context, what, value)) == 0, static_cast<std::uint64_t>(what));
  }
};

constexpr Lz4Codec kLz4Codec;
constexpr ZstdCodec kZstdCodec;

}  // namespace

const PageCodec& page_codec(CompressionMode mode) {
  switch (mode) {
    case CompressionMode::kLz4:
      return kLz4Codec;
    case CompressionMode::kZstd:
      return kZstdCodec;
  }
  check_failed(__FILE__, __LINE__, "no such codec", static_cast<std::uint64_t>(mode));
}

}  // namespace enchilada
