// gzip, xz, zstd and zip. Invariant: a stream that ends early is an error, not a short trace.
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <cstdio>
#include <memory>

#include "lab/policies/trace_reader.h"

namespace enchilada::lab {
namespace {

constexpr std::size_t kPiece = 1 << 20;

bool starts(std::string_view bytes, std::string_view magic) {
  return bytes.substr(0, magic.size()) == magic;
}

/// zlib's streams; how many bytes they took. window: zlib's code for gzip, or for no header.
std::size_t inflate_into(std::string_view bytes, int window, std::string* out) {
  z_stream z{};
  if (inflateInit2(&z, window) != Z_OK) throw TraceError("no memory to unpack it");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> end(&z, inflateEnd);
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  std::size_t left = bytes.size();
  std::string piece(kPiece, '\0');
  for (int state = Z_OK; state != Z_STREAM_END;) {
    if (z.avail_in == 0) {
      z.avail_in = static_cast<uInt>(std::min(left, kPiece));
      left -= z.avail_in;
    }
    z.next_out = reinterpret_cast<Bytef*>(piece.data());
    z.avail_out = static_cast<uInt>(piece.size());
    state = inflate(&z, Z_NO_FLUSH);
    if (state != Z_OK && state != Z_STREAM_END) throw TraceError("packed, and damaged or cut off");
    out->append(piece, 0, piece.size() - z.avail_out);
  }
  return bytes.size() - left - z.avail_in;
}

std::string unpack_gzip(std::string_view bytes) {
  constexpr int kGzipWindow = 15 + 16;
  std::string out;
  while (starts(bytes, "\x1f\x8b")) bytes.remove_prefix(inflate_into(bytes, kGzipWindow, &out));
  return out;
}

std::string unpack_xz(std::string_view bytes) {
  lzma_stream z = LZMA_STREAM_INIT;
  if (lzma_stream_decoder(&z, UINT64_MAX, LZMA_CONCATENATED) != LZMA_OK)
    throw TraceError("no memory to unpack it");
  const std::unique_ptr<lzma_stream, void (*)(lzma_stream*)> end(&z, lzma_end);
  z.next_in = reinterpret_cast<const std::uint8_t*>(bytes.data());
  z.avail_in = bytes.size();
  std::string out;
  std::string piece(kPiece, '\0');
  for (lzma_ret state = LZMA_OK; state != LZMA_STREAM_END;) {
    z.next_out = reinterpret_cast<std::uint8_t*>(piece.data());
    z.avail_out = piece.size();
    state = lzma_code(&z, LZMA_FINISH);
    if (state != LZMA_OK && state != LZMA_STREAM_END) throw TraceError("packed, and damaged or cut off");
    out.append(piece, 0, piece.size() - z.avail_out);
  }
  return out;
}

std::string unpack_zstd(std::string_view bytes) {
  const std::unique_ptr<ZSTD_DStream, std::size_t (*)(ZSTD_DStream*)> z(ZSTD_createDStream(),
                                                                        ZSTD_freeDStream);
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  std::string out;
  std::string piece(kPiece, '\0');
  for (std::size_t wants = 1; wants != 0 || in.pos < in.size;) {
    ZSTD_outBuffer to{piece.data(), piece.size(), 0};
    const std::size_t before = in.pos;
    wants = ZSTD_decompressStream(z.get(), &to, &in);
    if (ZSTD_isError(wants) != 0 || (wants != 0 && in.pos == before && to.pos == 0)) {
      throw TraceError("packed, and damaged or cut off");
    }
    out.append(piece, 0, to.pos);
  }
  return out;
}

std::uint32_t number_at(std::string_view bytes, std::size_t at, std::size_t width) {
  if (at + width > bytes.size()) throw TraceError("a zip file that is cut off");
  std::uint32_t n = 0;
  for (std::size_t i = width; i-- > 0;) n = n << 8 | static_cast<unsigned char>(bytes[at + i]);
  return n;
}

}  // namespace

std::string read_bytes(const std::string& file) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> in(
      file == "-" ? stdin : std::fopen(file.c_str(), "rb"),
      [](std::FILE* f) { return f == stdin ? 0 : std::fclose(f); });
  if (in == nullptr) throw TraceError("cannot be opened");
  std::string bytes;
  std::string piece(kPiece, '\0');
  while (const std::size_t n = std::fread(piece.data(), 1, piece.size(), in.get())) bytes.append(piece, 0, n);
  if (std::ferror(in.get()) != 0) throw TraceError("cannot be read");
  return bytes;
}

std::string unpack(std::string bytes) {
  if (starts(bytes, "\x1f\x8b")) return unpack_gzip(bytes);
  if (starts(bytes, std::string_view("\xfd"
                                     "7zXZ\0",
                                     6)))
    return unpack_xz(bytes);
  if (starts(bytes, "\x28\xb5\x2f\xfd")) return unpack_zstd(bytes);
  return bytes;
}

std::string unpack_zip(std::string_view bytes) {
  constexpr std::size_t kHeader = 30;
  constexpr int kRawWindow = -15;
  std::string out;
  while (starts(bytes, "PK\x03\x04")) {
    const std::uint32_t flags = number_at(bytes, 6, 2);
    const std::uint32_t method = number_at(bytes, 8, 2);
    const std::uint32_t packed = number_at(bytes, 18, 4);
    const std::size_t data = kHeader + number_at(bytes, 26, 2) + number_at(bytes, 28, 2);
    if (data > bytes.size()) throw TraceError("a zip file that is cut off");
    bytes.remove_prefix(data);
    const bool sizes_follow = (flags & 8) != 0;
    if (method == 8) {
      bytes.remove_prefix(inflate_into(bytes, kRawWindow, &out));
    } else if (method == 0 && !sizes_follow && packed <= bytes.size()) {
      out.append(bytes.substr(0, packed));
      bytes.remove_prefix(packed);
    } else {
      throw TraceError("a zip file that is cut off, or packed in a way that is not read");
    }
    if (sizes_follow)
      bytes.remove_prefix(std::min<std::size_t>(bytes.size(), starts(bytes, "PK\x07\x08") ? 16 : 12));
  }
  return out;
}

}  // namespace enchilada::lab
