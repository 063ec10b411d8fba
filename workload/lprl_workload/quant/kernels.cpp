// The formulas of fp8_block.py and int4_group.py over slabs of BF16 rows, fused with error statistics.
//
// Bit-equal to the PyTorch code by construction and by property tests: every product, quotient and rounding is the same single
// fp32 operation (no fast-math, no contraction). Written as plain loops that GCC and Clang vectorise; magnitudes of BF16 values
// are compared as integers, which orders them alike and needs no conversion.
//
// Build: c++ -O3 -march=native -ffp-contract=off -shared -fPIC

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace {

constexpr uint16_t kInfinity = 0x7F80;  // BF16 magnitude bits from here on are infinite or NaN

inline float f32(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline float widen(uint16_t bf16) { return f32(uint32_t(bf16) << 16); }

// Round to nearest even; finite input.
inline uint16_t narrow(float value) {
  const uint32_t bits = bits_of(value);
  return uint16_t((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// Sixteen lanes, whatever registers the machine has (vector extensions of GCC and Clang).
constexpr int kLanes = 16;
typedef uint8_t U8 __attribute__((vector_size(kLanes)));
typedef uint16_t U16 __attribute__((vector_size(2 * kLanes)));
typedef uint32_t U32 __attribute__((vector_size(4 * kLanes)));
typedef int32_t I32 __attribute__((vector_size(4 * kLanes)));
typedef float F32 __attribute__((vector_size(4 * kLanes)));
typedef uint64_t U64 __attribute__((vector_size(kLanes)));
typedef uint16_t Wide __attribute__((vector_size(64)));
constexpr int kWide = 32;

// Largest magnitudes of BF16 values, as bits.
struct Most {
  Wide lanes = {};

  inline void note(const uint16_t* x, int64_t n) {
    int64_t i = 0;
    for (; i + kWide <= n; i += kWide) {
      Wide raw;
      std::memcpy(&raw, x + i, sizeof raw);
      raw &= 0x7FFF;
      lanes = raw > lanes ? raw : lanes;
    }
    for (; i < n; ++i) {
      const uint16_t magnitude = x[i] & 0x7FFF;
      if (magnitude > lanes[0]) lanes[0] = magnitude;
    }
  }

  uint16_t reduce() const {
    uint16_t most = 0;
    for (int i = 0; i < kWide; ++i) most = lanes[i] > most ? lanes[i] : most;
    return most;
  }
};

inline uint16_t absmax(const uint16_t* x, int64_t n) {
  Most most;
  most.note(x, n);
  return most.reduce();
}

inline F32 floats(U32 bits) { return reinterpret_cast<F32>(bits); }
inline U32 bits(F32 values) { return reinterpret_cast<U32>(values); }

// Non-negative floats order like their bits, and an integer maximum is one instruction everywhere.
inline I32 larger(I32 a, I32 b) { return a > b ? a : b; }
inline I32 ordered(F32 values) { return reinterpret_cast<I32>(values); }

// Sixteen BF16 values as fp32.
inline F32 load(const uint16_t* x) {
  U16 raw;
  std::memcpy(&raw, x, sizeof raw);
  return floats(__builtin_convertvector(raw, U32) << 16);
}

// Statistics of values that share a unit, chosen so that no fp32 square overflows.
struct Lanes {
  F32 squared_error = {}, squared_weight = {};
  I32 worst = {};  // bits of the largest squared error

  inline void note(F32 error, F32 weight) {
    const F32 square = error * error;
    squared_error += square;
    squared_weight += weight * weight;
    worst = larger(worst, ordered(square));
  }

  // Add to sums[3] = {squared error, squared weight, largest error}.
  void reduce(double unit, double* sums) const {
    double error = 0, weight = 0, most = 0;
    for (int i = 0; i < kLanes; ++i) {
      error += squared_error[i];
      weight += squared_weight[i];
      most = std::fmax(most, f32(uint32_t(worst[i])));
    }
    most = std::sqrt(most);
    sums[0] += error * unit * unit;
    sums[1] += weight * unit * unit;
    sums[2] = most * unit > sums[2] ? most * unit : sums[2];
  }
};

inline float qscale_of(float most, bool pow2) {
  float qscale = most == 0.0f ? 1.0f : 448.0f / most;
  if (qscale > FLT_MAX) qscale = FLT_MAX;
  return pow2 ? f32(bits_of(qscale) & 0x7F800000u) : qscale;
}

// Sixteen codes. A value x = 1.m * 2^e has E4M3 steps of 2^(e-3), subnormal ones (e < -6) of 2^-9. Adding 1.5 * 2^(max(e,-6)+20),
// whose ulp is that step, rounds x to nearest even and leaves the number of steps in the low bits of the sum: 8 to 16, or 0 to 8
// where subnormal; with 8 more per exponent above -6 that is the code.
inline void encode_fp8(const uint16_t* x, float qscale, uint8_t* codes, Lanes* lanes) {
  const U32 product = bits(load(x) * qscale);
  const F32 magnitude = floats(product & 0x7FFFFFFFu);
  const U32 exponent = reinterpret_cast<U32>(larger(reinterpret_cast<I32>(product & 0x7F800000u), I32{} + 0x3C800000));
  const F32 shift = floats(exponent + ((20u << 23) | 0x400000u));
  const F32 shifted = magnitude + shift;
  // Only the low byte counts: that of `shift` is zero.
  const U32 code = (bits(shifted) + (exponent >> 20) - (0x3C800000u >> 20)) & 0x7Fu;
  lanes->note((shifted - shift) - magnitude, magnitude);
  const U8 bytes = __builtin_convertvector(code | ((product >> 24) & 0x80u), U8);
  std::memcpy(codes, &bytes, kLanes);
}

// Codes of n values that share a scale.
inline void encode_fp8_run(const uint16_t* x, int64_t n, float qscale, uint8_t* codes, Lanes* total) {
  Lanes lanes = *total;  // a copy, so that it stays in registers
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) encode_fp8(x + i, qscale, codes + i, &lanes);
  *total = lanes;
  if (i == n) return;
  uint16_t last[kLanes] = {};  // zeros add nothing to the sums
  uint8_t last_codes[kLanes];
  std::memcpy(last, x + i, 2 * (n - i));
  encode_fp8(last, qscale, last_codes, total);
  std::memcpy(codes + i, last_codes, n - i);
}

// Sixteen codes of INT4 with the stored scale, as integers in the low bits of what is returned. BF16 rounding makes a scale at most 2^-9 too
// small, so a quotient of absmax / 7 is at most 7.014 and needs no clamping; of absmax / 8 (kLower) 8 is no code and becomes 7.
template <bool kLower>
inline F32 round_int4(F32 weight, float inverse) {
  // Adding 1.5 * 2^23 rounds to an integer, ties to even, and leaves it in the low bits.
  const F32 shifted = weight * inverse + 12582912.0f;
  const F32 top = F32{} + 12582919.0f;
  return kLower ? (shifted > top ? top : shifted) : shifted;
}

// What an engine computes with: the code times the scale, rounded to BF16.
inline F32 value_int4(F32 shifted, float scale) {
  const U32 product = bits((shifted - 12582912.0f) * scale);
  return floats((product + 0x7FFFu + ((product >> 16) & 1u)) & 0xFFFF0000u);
}

// Bits of the largest error of a group.
template <bool kLower>
inline int32_t worst_int4(const uint16_t* x, int64_t n, float scale) {
  const float inverse = 1.0f / scale;
  I32 worst = {};
  for (int64_t i = 0; i < n; i += kLanes) {
    const F32 weight = load(x + i);
    const F32 error = value_int4(round_int4<kLower>(weight, inverse), scale) - weight;
    worst = larger(worst, ordered(error) & 0x7FFFFFFF);
  }
  int32_t most = 0;
  for (int i = 0; i < kLanes; ++i) most = worst[i] > most ? worst[i] : most;
  return most;
}

// Codes of one INT4 group (n a multiple of 32) with the stored scale; `unit` is the inverse of the statistics' unit.
template <bool kLower>
inline void encode_int4(const uint16_t* x, int64_t n, float scale, float unit, uint32_t* packed, Lanes* lanes) {
  const float inverse = 1.0f / scale;
  for (int64_t i = 0; i < n; i += kLanes) {
    const F32 weight = load(x + i);
    const F32 shifted = round_int4<kLower>(weight, inverse);
    lanes->note((value_int4(shifted, scale) - weight) * unit, weight * unit);
    const U8 nibbles = __builtin_convertvector(bits(shifted) + 8u, U8);
    U64 eight = reinterpret_cast<U64>(nibbles);
    eight = (eight | (eight >> 4)) & 0x00FF00FF00FF00FFull;
    eight = (eight | (eight >> 8)) & 0x0000FFFF0000FFFFull;
    eight |= eight >> 16;
    packed[i / 8] = uint32_t(eight[0]);
    packed[i / 8 + 1] = uint32_t(eight[1]);
  }
}

inline uint16_t scale_int4(float most, float divisor) {
  const float scale = most / divisor;
  return narrow(scale < FLT_MIN ? FLT_MIN : scale);
}

// Put the best of the scales tried into *scale, which holds that of most / 7; returns whether it is that of most / 8.
inline bool best_int4(const uint16_t* x, int64_t n, float most, uint16_t* scale) {
  const uint16_t first = *scale, eighth = scale_int4(most, 8.0f);
  int32_t least = worst_int4<false>(x, n, widen(first));
  bool lower = false;
  int32_t error = worst_int4<true>(x, n, widen(eighth));
  if (error < least) least = error, *scale = eighth, lower = true;
  for (const uint16_t next : {uint16_t(first - 1 < 0x80 ? 0x80 : first - 1), uint16_t(first + 1)}) {
    error = worst_int4<false>(x, n, widen(next));
    if (error < least) least = error, *scale = next, lower = false;
  }
  return lower;
}

}  // namespace

extern "C" {

// Largest magnitude of n BF16 values, as BF16 bits (0x7F80 and above: infinite or NaN).
uint16_t lprl_absmax(const uint16_t* x, int64_t n) { return absmax(x, n); }

// Quantise x [rows, cols] in rectangles of bn x bk. `fixed`: BF16 bits of the shared absmax, or -1 for each rectangle's own.
// codes [rows, cols], scales [ceil(rows/bn), ceil(cols/bk)]; sums is added to; *zeros counts rectangles of zeros.
// Returns 1, with outputs undefined, where a value is not finite, else 0.
//
// Up to kBand rectangles side by side are read row by row, twice: rows lie a page or more apart, and reading each rectangle on
// its own misses the TLB at every row.
int lprl_fp8(const uint16_t* x, int64_t rows, int64_t cols, int64_t bn, int64_t bk, int pow2, int fixed, uint8_t* codes,
             float* scales, double* sums, int64_t* zeros) {
  constexpr int kBand = 32;
  const int64_t blocks = (cols + bk - 1) / bk;
  for (int64_t row = 0; row < rows; row += bn, scales += blocks) {
    const int64_t end = rows - row < bn ? rows : row + bn;
    for (int64_t first = 0; first < blocks; first += kBand) {
      const int64_t count = blocks - first < kBand ? blocks - first : kBand;
      const auto width = [&](int64_t b) { return cols - b * bk < bk ? cols - b * bk : bk; };
      Most most[kBand];
      if (fixed < 0)
        for (int64_t r = row; r < end; ++r)
          for (int64_t b = 0; b < count; ++b) most[b].note(x + r * cols + (first + b) * bk, width(first + b));
      float qscale[kBand];
      for (int64_t b = 0; b < count; ++b) {
        const uint16_t bits = fixed < 0 ? most[b].reduce() : uint16_t(fixed);
        if (bits >= kInfinity) return 1;
        *zeros += bits == 0;
        qscale[b] = qscale_of(widen(bits), pow2 != 0);
        scales[first + b] = 1.0f / qscale[b];
      }
      Lanes lanes[kBand];
      for (int64_t r = row; r < end; ++r)
        for (int64_t b = 0; b < count; ++b) {
          const int64_t at = r * cols + (first + b) * bk;
          encode_fp8_run(x + at, width(first + b), qscale[b], codes + at, &lanes[b]);
        }
      for (int64_t b = 0; b < count; ++b) lanes[b].reduce(scales[first + b], sums);
    }
  }
  return 0;
}

// Quantise x [rows, cols] in groups of `group` (32, 64 or 128) columns: packed [rows, cols/8], scales BF16 [rows, cols/group].
// `all`: of absmax / 7, absmax / 8 and the neighbours of the first, group by group, the first with the smallest largest error.
// Returns 1, with outputs undefined, where a value is not finite, else 0.
int lprl_int4(const uint16_t* x, int64_t rows, int64_t cols, int64_t group, int all, uint32_t* packed, uint16_t* scales, double* sums,
              int64_t* zeros, int64_t* clipped) {
  const int64_t per_row = cols / group;
  for (int64_t row = 0; row < rows; ++row, x += cols, packed += cols / 8, scales += per_row) {
    float row_most = 1e-30f;
    for (int64_t g = 0; g < per_row; ++g) {
      const uint16_t bits = absmax(x + g * group, group);
      if (bits >= kInfinity) return 1;
      const float most = widen(bits);
      scales[g] = scale_int4(most, 7.0f);
      *zeros += bits == 0;
      row_most = most > row_most ? most : row_most;
    }
    Lanes lanes;
    for (int64_t g = 0; g < per_row; ++g) {
      const uint16_t* from = x + g * group;
      uint32_t* to = packed + g * group / 8;
      const float most = widen(absmax(from, group)), unit = 1.0f / row_most;
      const bool lower = all && best_int4(from, group, most, &scales[g]);
      if (lower) {
        *clipped += most > 8.0f * widen(scales[g]);
        encode_int4<true>(from, group, widen(scales[g]), unit, to, &lanes);
      } else {
        *clipped += most > 7.0f * widen(scales[g]);
        encode_int4<false>(from, group, widen(scales[g]), unit, to, &lanes);
      }
    }
    lanes.reduce(row_most, sums);
  }
  return 0;
}
}
