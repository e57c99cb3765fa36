#pragma once

// Which instruction sets the kernels are compiled for: on x86 SSE4, AVX2 and AVX-512, chosen at run
// time. SSE4 (2008) is the least: below it Highway 1.0.3 has only a scalar target, which lacks the
// byte shuffles that NVFP4 needs. Include before any Highway header.
#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS HWY_SSE4
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif
