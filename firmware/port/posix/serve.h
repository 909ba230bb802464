/* The node of the wire on a host: fedtiny-node serve. */
#ifndef FT_PORT_SERVE_H
#define FT_PORT_SERVE_H

int serve(int argc, char **argv); /* argv[0] is "serve"; returns the program's exit code */

extern const char serve_usage[];

#endif
