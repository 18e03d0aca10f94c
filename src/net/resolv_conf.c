/* Reads resolv.conf(5) as glibc does, of which only `nameserver` counts here: three of them, a zone
 * behind %, and, for tests, [ADDRESS]:PORT. See resolv_conf.h. */
#include "net/resolv_conf.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "util/bytes.h"
#include "util/cleanup.h"

#define MAX_FILE 65536

static bool parse_server(char *text, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof(*out));
    unsigned long port = 53;
    if (text[0] == '[') {
        char *end = strchr(++text, ']');
        if (!end || end[1] != ':')
            return false;
        *end = '\0';
        port = strtoul(end + 2, NULL, 10);
        if (port == 0 || port > 65535)
            return false;
    }
    char *zone = strchr(text, '%');
    if (zone)
        *zone++ = '\0';
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)out;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htobe16((uint16_t)port);
        return true;
    }
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)out;
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) != 1)
        return false;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htobe16((uint16_t)port);
    v6->sin6_scope_id = zone ? if_nametoindex(zone) : 0;
    return true;
}

void sm_resolv_conf_parse(struct sm_resolv_conf *conf, char *text)
{
    conf->n = 0;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line && conf->n < SM_RESOLV_MAX;
         line = strtok_r(NULL, "\n", &save)) {
        char *words = NULL;
        const char *key = strtok_r(line, " \t\r", &words);
        char *value = strtok_r(NULL, " \t\r", &words);
        if (key && value && strcmp(key, "nameserver") == 0 &&
            parse_server(value, &conf->servers[conf->n]))
            conf->n++;
    }
    if (conf->n == 0) {
        static const char loopback[] = "127.0.0.1";
        char copy[sizeof(loopback)];
        memcpy(copy, loopback, sizeof(copy));
        conf->n = parse_server(copy, &conf->servers[0]) ? 1 : 0;
    }
}

void sm_resolv_conf_refresh(struct sm_resolv_conf *conf)
{
    struct stat st = {0};
    if (stat(conf->path, &st) == 0 && conf->n > 0 && st.st_ino == conf->inode &&
        st.st_mtim.tv_sec == conf->mtime.tv_sec && st.st_mtim.tv_nsec == conf->mtime.tv_nsec)
        return;
    conf->mtime = st.st_mtim;
    conf->inode = st.st_ino;
    auto_free char *text = calloc(1, MAX_FILE + 1);
    if (!text)
        return;
    auto_fd fd = open(conf->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd >= 0 ? read(fd, text, MAX_FILE) : 0;
    text[n > 0 ? n : 0] = '\0';
    sm_resolv_conf_parse(conf, text);
}
