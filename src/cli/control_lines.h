/* The lines that two processes of ours say to each other (control.h): read, and taken apart. Either
 * may be of another version. */
#ifndef SM_CLI_CONTROL_LINES_H
#define SM_CLI_CONTROL_LINES_H

#include <limits.h>
#include <supermachine.h>

#define CLI_MAX_LINE (PATH_MAX + 64)

/* Of a socket. */
struct cli_lines {
    int fd;
    size_t begin, end;
    char text[CLI_MAX_LINE];
};

/* The next line, without its newline, which lives until the one after it; NULL: there is none, or
 * it is too long. */
char *cli_read_line(struct cli_lines *in);

enum cli_request { CLI_ASKS_NONSENSE, CLI_ASKS_PORTS, CLI_ASKS_SNAPSHOT };

/* *path, in the line: of a snapshot. */
enum cli_request cli_parse_request(const char *line, const char **path);

/* The answers; false: the line is none. "port ..." has a newline, in a buffer of CLI_PORT_LINE
 * bytes. */
#define CLI_PORT_LINE 128
void cli_format_port(const sm_vm_port *port, char line[CLI_PORT_LINE]);
bool cli_parse_port(const char *line, sm_vm_port *port);
bool cli_parse_snapshot(const char *line, sm_snapshot_stats *stats);

#endif
