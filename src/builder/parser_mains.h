/* What parsers do: see parser.h. */
#ifndef SM_BUILDER_PARSER_MAINS_H
#define SM_BUILDER_PARSER_MAINS_H

#include "builder/source.h"

/* A blob to be inflated. */
struct sm_parser_inflate {
    struct sm_descriptor d;
    uint64_t offset, size;
    bool checked, grows;
};

void sm_parser_reader(int socket);
void sm_parser_writer(int socket);

#endif
