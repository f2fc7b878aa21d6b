/* Vectors of floats, as wide as the processor's registers, and bfloat16 numbers in pairs. */
#pragma once
#include <stdint.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

/* For functions whose constant arguments are to be known inside. */
#define INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX2__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

static inline floats load(const float *from) { floats some; memcpy(&some, from, sizeof some); return some; }
static inline void store(float *to, floats some) { memcpy(to, &some, sizeof some); }
static inline floats all(float one) { return one - (floats){}; }

static inline words load_words(const uint32_t *from) { words some; memcpy(&some, from, sizeof some); return some; }

static inline floats load_widened(const uint16_t *from) {
    halves some;
    memcpy(&some, from, sizeof some);
    return (floats)(__builtin_convertvector(some, words) << 16);
}

/* To the next bfloat16 number, half to even. */
static inline floats rounded(floats some) {
    words bits = (words)some;
    return (floats)((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000);
}

static inline void store_narrowed(uint16_t *to, floats some) {
    halves narrow = __builtin_convertvector((words)rounded(some) >> 16, halves);
    memcpy(to, &narrow, sizeof narrow);
}

static inline floats chosen(ints where, floats one, floats other) {
    return (floats)(((ints)one & where) | ((ints)other & ~where));
}

/* The second where one is no number. */
static inline floats larger(floats one, floats other) {
#if defined(__AVX512F__)
    return (floats)_mm512_max_ps((__m512)one, (__m512)other);
#elif defined(__AVX2__)
    return (floats)_mm256_max_ps((__m256)one, (__m256)other);
#else
    return chosen(one > other, one, other);
#endif
}

/* Not 0 where one is below `least`, above `most`, or no number. */
static inline int outside(floats some, float least, float most) {
#if defined(__AVX512F__)
    __m512 numbers = (__m512)some;
    return _mm512_cmp_ps_mask(numbers, _mm512_set1_ps(most), _CMP_NLE_UQ) |
           _mm512_cmp_ps_mask(numbers, _mm512_set1_ps(least), _CMP_NGE_UQ);
#elif defined(__AVX2__)
    __m256 numbers = (__m256)some;
    return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(numbers, _mm256_set1_ps(most), _CMP_NLE_UQ),
                                           _mm256_cmp_ps(numbers, _mm256_set1_ps(least), _CMP_NGE_UQ)));
#else
    int found = 0;
    for (int i = 0; i < LANES; i++) found |= !(some[i] <= most && some[i] >= least);
    return found;
#endif
}

/* Always in the same order. */
static inline float total(floats some) {
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) some[i] += some[i + width];
    return some[0];
}

static inline float largest(floats some) {
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) some[i] = some[i] > some[i + width] ? some[i] : some[i + width];
    return some[0];
}

/* 2 to the power, 0 below 2^-126: the whole part by the number's bits, the rest by a series (error 1e-7). */
static inline floats exp2_of(floats power) {
    const floats magic = all(12582912.0f); /* 1.5 * 2^23: what is added to it is rounded to a whole number */
    floats bounded = chosen(power > 127, all(127), power);
    floats whole = bounded + magic;
    ints exponent = (ints)whole - (ints)magic;
    floats rest = bounded - (whole - magic);
    floats series = all(1.5403530e-4f);
    const float terms[] = {1.3333558e-3f, 9.6181291e-3f, 5.5504109e-2f, 0.24022651f, 0.69314718f, 1.0f};
    for (int i = 0; i < 6; i++) series = series * rest + terms[i];
    floats result = series * (floats)((exponent + 127) << 23);
    return chosen(power < -126, all(0), result); /* what is not a number stays so */
}

/* Activations are what products multiply weights with, two at a time, and sums are float32.

Processors that multiply bfloat16 pairs get them so; others get float32, for which weights are widened on the way. */
#ifdef __AVX512BF16__
typedef uint16_t activation;
typedef words factors;

static inline factors factors_of(words pairs) { return pairs; }
static inline floats add_product(floats sum, const activation *pair, factors by) {
    int32_t both;
    memcpy(&both, pair, sizeof both);
    return (floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(both), (__m512bh)by);
}
static inline void store_activations(activation *to, floats some) {
    __m256bh narrow = _mm512_cvtneps_pbh((__m512)some); /* what is next to 0 becomes 0, as it is for the products */
    memcpy(to, &narrow, sizeof narrow);
}
#else
typedef float activation;
typedef struct { floats first, second; } factors;

static inline factors factors_of(words pairs) {
    return (factors){(floats)(pairs << 16), (floats)(pairs & 0xffff0000)};
}
static inline floats add_product(floats sum, const activation *pair, factors by) {
    sum += pair[0] * by.first;
    return sum + pair[1] * by.second;
}
static inline void store_activations(activation *to, floats some) { store(to, some); }
#endif
