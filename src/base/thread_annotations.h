// Clang thread-safety attributes; nothing under other compilers.
#pragma once

#if defined(__clang__)
#define ENCHILADA_TSA(x) __attribute__((x))
#else
#define ENCHILADA_TSA(x)
#endif

#define CAPABILITY(name) ENCHILADA_TSA(capability(name))
#define SCOPED_CAPABILITY ENCHILADA_TSA(scoped_lockable)
#define GUARDED_BY(x) ENCHILADA_TSA(guarded_by(x))
#define PT_GUARDED_BY(x) ENCHILADA_TSA(pt_guarded_by(x))
#define REQUIRES(...) ENCHILADA_TSA(requires_capability(__VA_ARGS__))
#define REQUIRES_SHARED(...) ENCHILADA_TSA(requires_shared_capability(__VA_ARGS__))
#define EXCLUDES(...) ENCHILADA_TSA(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) ENCHILADA_TSA(acquire_capability(__VA_ARGS__))
#define ACQUIRE_SHARED(...) ENCHILADA_TSA(acquire_shared_capability(__VA_ARGS__))
#define RELEASE(...) ENCHILADA_TSA(release_capability(__VA_ARGS__))
#define RELEASE_SHARED(...) ENCHILADA_TSA(release_shared_capability(__VA_ARGS__))
#define RELEASE_GENERIC(...) ENCHILADA_TSA(release_generic_capability(__VA_ARGS__))
#define TRY_ACQUIRE(...) ENCHILADA_TSA(try_acquire_capability(__VA_ARGS__))
#define TRY_ACQUIRE_SHARED(...) ENCHILADA_TSA(try_acquire_shared_capability(__VA_ARGS__))
#define ASSERT_CAPABILITY(x) ENCHILADA_TSA(assert_capability(x))
#define ASSERT_SHARED_CAPABILITY(x) ENCHILADA_TSA(assert_shared_capability(x))
#define RETURN_CAPABILITY(x) ENCHILADA_TSA(lock_returned(x))
#define NO_THREAD_SAFETY_ANALYSIS ENCHILADA_TSA(no_thread_safety_analysis)
