/*
 * xml.h - any bytes as text of an XML document.
 */
#ifndef REPORT_XML_H
#define REPORT_XML_H

#include <stdio.h>

#include "memprobe/error.h"

/*
 * Writes @text as character data or attribute value (in double quotes): markup is escaped, control
 * characters and broken UTF-8 show as text_printable() shows them.
 */
struct error *xml_put(FILE *out, const char *text);

#endif
