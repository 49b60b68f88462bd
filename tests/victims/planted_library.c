/*
 * The functions of planted.h for programs that call foreign ones: ctypes of Python, ffi of LuaJIT.
 *
 * cflags: -shared -fPIC
 */
#include "planted.h"
