#include "xml.h"

#include <string.h>

#include "memprobe/text.h"

struct error *xml_put(FILE *out, const char *text)
{
	cleanup(free) char *safe = text_printable(text);

	if (!safe)
		return &error_no_memory;
	for (const char *at = safe; *at; at++) {
		if (*at == '&')
			fputs("&amp;", out);
		else if (*at == '<')
			fputs("&lt;", out);
		else if (*at == '>')
			fputs("&gt;", out);
		else if (*at == '"')
			fputs("&quot;", out);
		else if (!strncmp(at, "\xef\xbf\xbe", 3) || !strncmp(at, "\xef\xbf\xbf", 3))
			/* U+FFFE and U+FFFF are valid in UTF-8 and no characters of XML. */
			fputs("\xef\xbf\xbd", out), at += 2;
		else
			putc_unlocked(*at, out);
	}
	return NULL;
}
