/*
 * Text that somebody else wrote: a guest's console, an agent's refusal, names in an image, words of
 * a registry, a path. Nothing of it may reach a message, a log or a terminal as anything but text.
 * All of it goes through here.
 */
#ifndef SM_UTIL_TEXT_H
#define SM_UTIL_TEXT_H

#include <stdbool.h>

/* Replaces by '?' in place what a terminal obeys instead of showing it: C0 controls, DEL, C1
 * controls (U+0080 to U+009F, and 0x80 to 0x9f as bytes), and with the latter all that is not
 * well-formed UTF-8. Never longer than before. `lines`: newlines and tabs stay, and CR LF becomes a
 * newline; otherwise the text ends up as one line. */
void sm_text_clean(char *text, bool lines);

/* Makes a path "a//./b/../c" into "a/c" in place; a leading "/" is dropped, and so is "..", where
 * it would climb out of the root: false then. */
bool sm_path_clean(char *path);

#endif
