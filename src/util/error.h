/*
 * The one error type: every fallible function returns 0 or a negative enum sm_code and fills an
 * sm_error with a sentence: what failed, on what, what the user can do.
 *
 * The function that notices the failure writes the sentence (sm_error_set, sm_error_errno); callers
 * put context in front of it on the way up (sm_error_prefix). All accept a NULL error.
 *
 * Whatever is put into a sentence, it comes out as text that a terminal shows (util/text.h). Only
 * line ends stay, for the console's lines; where a guest or an image must not make lines of its
 * own, sm_text_clean is called before.
 */
#ifndef SM_UTIL_ERROR_H
#define SM_UTIL_ERROR_H

#include <supermachine.h>

/* Fills *err and returns -code, so that a caller can write `return sm_error_set(...)`. */
int sm_error_set(sm_error *err, enum sm_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As sm_error_set, with ": " and the text of the errno value appended; the code follows from errnum
 * (ENOENT -> SM_ENOTFOUND, EACCES/EPERM -> SM_EPERM, ENOSPC/EDQUOT -> SM_ENOSPC, ...). */
int sm_error_errno(sm_error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "text: " in front of the sentence. Returns rc, for use as
 * `return sm_error_prefix(err, rc, "layer %zu", i)`. */
int sm_error_prefix(sm_error *err, int rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
