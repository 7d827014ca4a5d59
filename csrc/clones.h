// DSA_CLONES before a function: on x86-64 Linux it is compiled for AVX2 as well, and the better version
// is chosen when the library loads, by the instructions that the processor has. (With the name of an
// architecture, the choice would go by the processor's maker.) Products and sums are never fused
// (-ffp-contract=off), so both give the same bits. What such a function calls must be DSA_FLAT (lambdas:
// DSA_FLAT_LAMBDA) to be compiled with it.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define DSA_CLONES __attribute__((target_clones("default", "avx2")))
#define DSA_FLAT inline __attribute__((always_inline))
#define DSA_FLAT_LAMBDA __attribute__((always_inline))
#else
#define DSA_CLONES
#define DSA_FLAT inline
#define DSA_FLAT_LAMBDA
#endif
