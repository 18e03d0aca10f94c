/* Whether this build has a sandbox at all: sanitizers map terabytes, read /proc and trace at the
 * end, so their builds have none. */
#ifndef SM_SANDBOX_BUILD_H
#define SM_SANDBOX_BUILD_H

#ifdef __has_feature
#define SM_HAS_FEATURE(name) __has_feature(name)
#else
#define SM_HAS_FEATURE(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||                               \
    SM_HAS_FEATURE(address_sanitizer) || SM_HAS_FEATURE(thread_sanitizer) ||                       \
    SM_HAS_FEATURE(memory_sanitizer)
#define SM_SANDBOX_OFF 1
#else
#define SM_SANDBOX_OFF 0
#endif

#endif
