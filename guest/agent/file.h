/* WRITE_FILE and READ_FILE: see file.c. */
#ifndef SM_AGENT_FILE_H
#define SM_AGENT_FILE_H

#include "conn.h"

void file_write(struct conn *c, const struct sm_wire_write_file *m);
void file_read(struct conn *c, const struct sm_wire_read_file *m);

#endif
