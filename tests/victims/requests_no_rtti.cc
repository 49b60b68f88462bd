/*
 * The same as `requests`, compiled without type information: only symbols tell the classes.
 *
 * cflags: -fno-rtti
 */
#include "requests.cc"
