/* The one error type. See error.h. */
#include "util/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "util/text.h"

static enum sm_code code_of_errno(int errnum)
{
    switch (errnum) {
    case ENOENT:
    case ENOTDIR:
        return SM_ENOTFOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return SM_EPERM;
    case ENOMEM:
        return SM_ENOMEM;
    case ENOSPC:
    case EDQUOT:
        return SM_ENOSPC;
    case ETIMEDOUT:
        return SM_ETIMEOUT;
    case EBUSY:
    case EADDRINUSE:
    case EWOULDBLOCK:
        return SM_EBUSY;
    case EEXIST:
        return SM_EEXIST;
    case EINVAL:
        return SM_EINVAL;
    case EOPNOTSUPP:
    case ENOSYS:
        return SM_EUNSUPPORTED;
    default:
        return SM_EIO;
    }
}

int sm_error_set(sm_error *err, enum sm_code code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(err->message, sizeof(err->message), fmt, ap);
        va_end(ap);
        sm_text_clean(err->message, true);
        err->code = code;
        err->sys_errno = 0;
    }
    return -(int)code;
}

int sm_error_errno(sm_error *err, int errnum, const char *fmt, ...)
{
    enum sm_code code = code_of_errno(errnum);
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        int n = vsnprintf(err->message, sizeof(err->message), fmt, ap);
        va_end(ap);
        if (n >= 0 && (size_t)n < sizeof(err->message)) {
            char text[128];
            snprintf(err->message + n, sizeof(err->message) - (size_t)n, ": %s",
                strerror_r(errnum, text, sizeof(text)));
        }
        sm_text_clean(err->message, true);
        err->code = code;
        err->sys_errno = errnum;
    }
    return -(int)code;
}

int sm_error_prefix(sm_error *err, int rc, const char *fmt, ...)
{
    if (!err)
        return rc;
    char tail[sizeof(err->message)];
    memcpy(tail, err->message, sizeof(tail));
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->message, sizeof(err->message), fmt, ap);
    va_end(ap);
    if (n < 0)
        n = 0;
    if ((size_t)n < sizeof(err->message))
        snprintf(err->message + n, sizeof(err->message) - (size_t)n, ": %s", tail);
    sm_text_clean(err->message, true);
    return rc;
}
