/* Options that may be given several times: their values in a list, and environments. */
#ifndef SM_CLI_LISTS_H
#define SM_CLI_LISTS_H

#include "util/strv.h"

/* Ends the program, with a message. (cppcheck sees no _Noreturn of a prototype.) */
__attribute__((noreturn)) void cli_no_memory(void);

/* Or cli_no_memory. */
void cli_list_add(struct sm_strv *list, const char *text);

/* Each word between commas; an empty text is an empty word. */
void cli_list_add_words(struct sm_strv *list, const char *text);

/* --env: "NAME=VALUE", or "NAME" for the value it has here (nothing where it has none). */
bool cli_env_add(struct sm_strv *env, const char *text);
/* --env-file, as docker reads it: one per line; empty lines and lines that begin with # are
 * skipped, so is a byte order mark; names with white space in them and what is not UTF-8 are
 * refused. */
int cli_env_add_file(struct sm_strv *env, const char *path);

/* --env-host, --http-proxy: all variables of ours, and those that say which proxy is used. */
void cli_env_add_all(struct sm_strv *env);
void cli_env_add_proxies(struct sm_strv *env);

#endif
