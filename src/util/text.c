/* Makes foreign text harmless. See text.h. */
#include "util/text.h"

#include <stddef.h>
#include <string.h>

static bool follows(unsigned char c)
{
    return (c & 0xc0) == 0x80;
}

/* Bytes of the well-formed UTF-8 sequence at p (RFC 3629: shortest form, no surrogates, up to
 * U+10FFFF); 0: there is none. Looks at no byte behind one that does not fit, so not behind the
 * NUL. */
static size_t sequence(const unsigned char *p)
{
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        return follows(p[1]) ? 2 : 0;
    unsigned char low = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
    if (p[0] < 0xe0 || p[0] > 0xf4 || p[1] < low || p[1] > high || !follows(p[2]))
        return 0;
    if (p[0] < 0xf0)
        return 3;
    return follows(p[3]) ? 4 : 0;
}

static bool is_control(const unsigned char *p)
{
    return p[0] < 0x20 || p[0] == 0x7f || (p[0] == 0xc2 && p[1] < 0xa0);
}

void sm_text_clean(char *text, bool lines)
{
    const unsigned char *from = (const unsigned char *)text;
    char *to = text;
    while (*from) {
        size_t n = sequence(from);
        if (lines && from[0] == '\r' && from[1] == '\n') {
            from++;
        } else if (n && (!is_control(from) || (lines && (*from == '\n' || *from == '\t')))) {
            for (; n; n--)
                *to++ = (char)*from++;
        } else {
            *to++ = '?';
            from += n ? n : 1;
        }
    }
    *to = '\0';
}

bool sm_path_clean(char *path)
{
    bool inside = true;
    char *out = path;
    const char *in = path;
    while (*in) {
        size_t n = strcspn(in, "/");
        const char *next = in[n] ? in + n + 1 : in + n;
        if (n == 2 && in[0] == '.' && in[1] == '.') {
            inside = inside && out > path;
            while (out > path && *--out != '/')
                ;
        } else if (n > 0 && !(n == 1 && in[0] == '.')) {
            if (out > path)
                *out++ = '/';
            memmove(out, in, n);
            out += n;
        }
        in = next;
    }
    *out = '\0';
    return inside;
}
