#include "memprobe/cmd.h"

#include <string.h>

/*
 * `memprobe completion bash|zsh|fish`: prints the completion script of a shell, made from the
 * command table, so that no option can be forgotten. `make install` puts them where the shells
 * look.
 */

/* Text inside single quotes of a shell. */
static void print_quoted(FILE *out, const char *text)
{
	fputc('\'', out);
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", out);
		else
			fputc(*text, out);
	}
	fputc('\'', out);
}

/* What comes after an option. */
enum value_kind { VALUE_NONE, VALUE_FILE, VALUE_WORDS, VALUE_TEXT };

#define VALUE_WORDS_MAX 128

/* With VALUE_WORDS, the words that may follow, a blank between them, in @words. */
static enum value_kind value_kind(const struct command_option *option, char words[VALUE_WORDS_MAX])
{
	if (!option->argument)
		return VALUE_NONE;
	if (!strcmp(option->argument, "FILE"))
		return VALUE_FILE;
	if (!strcmp(option->name, "color") && !strcmp(option->argument, "WHEN")) {
		snprintf(words, VALUE_WORDS_MAX, "auto always never");
		return VALUE_WORDS;
	}
	if (!strchr(option->argument, '|'))
		return VALUE_TEXT;
	snprintf(words, VALUE_WORDS_MAX, "%s", option->argument);
	for (char *bar = words; (bar = strchr(bar, '|')); bar++)
		*bar = ' ';
	return VALUE_WORDS;
}

/* What stands in a target's place are files then. */
static bool takes_files(const struct command *command)
{
	return command->target == TARGET_NONE && command->arguments_min &&
	       !strchr(command->arguments, '|');
}

/* ---- bash ---- */

/* `case` arms for the options of that kind of value; @command is the pattern of their command. */
static void bash_arms(FILE *out, enum value_kind kind, const struct command_option *options,
		      const char *command)
{
	for (; options && options->name; options++) {
		char words[VALUE_WORDS_MAX];

		if (value_kind(options, words) != kind)
			continue;
		fprintf(out, "\t%s\\ --%s", command, options->name);
		if (options->letter)
			fprintf(out, "|%s\\ -%c", command, options->letter);
		if (kind == VALUE_WORDS)
			fprintf(out, ") echo '%s' ;;\n", words);
		else
			fputs(") return 0 ;;\n", out);
	}
}

static void bash_function(FILE *out, const char *name, enum value_kind kind, int otherwise)
{
	/* $command is that of _memprobe(), which calls it. A command's own option goes before. */
	fprintf(out, "%s() {\n\tcase \"${command:-} $1\" in\n", name);
	for (size_t i = 0; commands[i]; i++)
		bash_arms(out, kind, commands[i]->options, commands[i]->name);
	bash_arms(out, kind, common_options, "*");
	fprintf(out, "\tesac\n\treturn %d\n}\n\n", otherwise);
}

static void bash_option_words(FILE *out, const struct command_option *options)
{
	for (; options && options->name; options++) {
		fprintf(out, " --%s%s", options->name, options->argument ? "=" : "");
		if (options->letter)
			fprintf(out, " -%c", options->letter);
	}
}

/* Names of processes are foreign text, and compgen -W expands its words: it never sees them. */
static const char bash_head[] =
	"_memprobe_takes_value() {\n"
	"\t_memprobe_takes_file \"$1\" || _memprobe_takes_text \"$1\" ||\n"
	"\t\t[ -n \"$(_memprobe_words_of \"$1\")\" ]\n"
	"}\n"
	"\n"
	"_memprobe_add_targets() {\n"
	"\tlocal dir name\n"
	"\tfor dir in /proc/[0-9]*; do\n"
	"\t\t[[ ${dir#/proc/} == \"$1\"* ]] && COMPREPLY+=(\"${dir#/proc/}\")\n"
	"\t\t{ IFS= read -r name <\"$dir/comm\"; } 2>/dev/null || continue\n"
	"\t\t[[ $name == \"$1\"* && $name =~ ^[A-Za-z0-9_.:+@/-]+$ ]] && COMPREPLY+=(\"$name\")\n"
	"\tdone\n"
	"}\n"
	"\n"
	"_memprobe() {\n"
	"\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev='' command='' words=0 i word options takes choice\n"
	"\tCOMPREPLY=()\n"
	"\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	"\t\tword=${COMP_WORDS[i]} prev=$word\n"
	"\t\tcase $word in\n"
	"\t\t= | -*) continue ;;\n"
	"\t\tesac\n"
	"\t\t[ \"${COMP_WORDS[i - 1]}\" = = ] && continue\n"
	"\t\t_memprobe_takes_value \"${COMP_WORDS[i - 1]}\" && continue\n"
	"\t\tif [ -z \"$command\" ]; then command=$word; else words=$((words + 1)); fi\n"
	"\tdone\n"
	"\tif [ \"$cur\" = = ]; then\n"
	"\t\tcur=''\n"
	"\telif [ \"$prev\" = = ]; then\n"
	"\t\tprev=${COMP_WORDS[COMP_CWORD - 2]}\n"
	"\tfi\n"
	"\tif _memprobe_takes_file \"$prev\"; then\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
	"\t\treturn\n"
	"\tfi\n"
	"\tchoice=$(_memprobe_words_of \"$prev\")\n"
	"\tif [ -n \"$choice\" ]; then\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -W \"$choice\" -- \"$cur\")\n"
	"\t\treturn\n"
	"\tfi\n"
	"\t_memprobe_takes_text \"$prev\" && return\n";

static const char bash_tail[] =
	"\tif [[ $cur == -* ]]; then\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$cur\")\n"
	"\t\tif [[ ${COMPREPLY[0]:-} == *= ]]; then compopt -o nospace 2>/dev/null; fi\n"
	"\telif [ -z \"$command\" ]; then\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -W \"$commands\" -- \"$cur\")\n"
	"\telif [ \"$takes\" = target ] && [ $words -eq 0 ]; then\n"
	"\t\t_memprobe_add_targets \"$cur\"\n"
	"\tfi\n"
	"}\n"
	"\n"
	"complete -o default -F _memprobe memprobe\n";

static struct error *print_bash(FILE *out, void *data)
{
	fputs("# bash completion of memprobe, made by `memprobe completion bash`\n\n", out);
	bash_function(out, "_memprobe_takes_file", VALUE_FILE, 1);
	bash_function(out, "_memprobe_takes_text", VALUE_TEXT, 1);
	bash_function(out, "_memprobe_words_of", VALUE_WORDS, 0);
	fputs(bash_head, out);
	fputs("\tlocal commands='", out);
	for (size_t i = 0; commands[i]; i++)
		if (!commands[i]->hidden)
			fprintf(out, " %s", commands[i]->name);
	fputs("'\n\ttakes=target\n\tcase $command in\n", out);
	for (size_t i = 0; commands[i]; i++) {
		fprintf(out, "\t%s)\n\t\toptions='", commands[i]->name);
		bash_option_words(out, commands[i]->options);
		fprintf(out, "'\n%s\t\t;;\n",
			commands[i]->target == TARGET_NONE ? "\t\ttakes=\n" : "");
	}
	fputs("\t*) options=' --version' ;;\n\tesac\n\toptions+='", out);
	bash_option_words(out, common_options);
	fputs("'\n", out);
	fputs(bash_tail, out);
	return NULL;
}

/* ---- zsh ---- */

/* `[` and `]` and `:` mean something to _arguments, `'` to the shell. */
static void zsh_text(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (strchr("[]:\\", *text))
			fputc('\\', out);
		if (*text == '\'')
			fputs("'\\''", out);
		else
			fputc(*text, out);
	}
}

static void zsh_value(FILE *out, const struct command_option *option)
{
	char words[VALUE_WORDS_MAX];
	enum value_kind kind = value_kind(option, words);

	if (kind == VALUE_NONE)
		return;
	fputc(':', out);
	zsh_text(out, option->argument);
	if (kind == VALUE_WORDS)
		fprintf(out, ":(%s)", words);
	else
		fputs(kind == VALUE_FILE ? ":_files" : ": ", out);
}

static void zsh_options(FILE *out, const struct command_option *options)
{
	for (; options && options->name; options++) {
		fputs("\t\t", out);
		if (options->letter)
			fprintf(out, "'(-%c --%s)'{-%c%s,--%s%s}", options->letter, options->name,
				options->letter, options->argument ? "+" : "", options->name,
				options->argument ? "=" : "");
		else
			fprintf(out, "--%s%s", options->name, options->argument ? "=" : "");
		fputs("'[", out);
		zsh_text(out, options->help);
		fputc(']', out);
		zsh_value(out, options);
		fputs("' \\\n", out);
	}
}

static struct error *print_zsh(FILE *out, void *data)
{
	fputs("#compdef memprobe\n"
	      "# zsh completion of memprobe, made by `memprobe completion zsh`\n\n"
	      "_memprobe_targets() {\n"
	      "\tlocal -a targets\n"
	      "\tlocal dir name\n"
	      "\tfor dir in /proc/[0-9]*(N); do\n"
	      "\t\tread -r name 2>/dev/null <$dir/comm && targets+=(${dir:t} $name)\n"
	      "\tdone\n"
	      "\tcompadd -a targets\n"
	      "\t_files\n"
	      "}\n\n"
	      "_memprobe_commands() {\n"
	      "\tlocal -a commands\n"
	      "\tcommands=(\n",
	      out);
	for (size_t i = 0; commands[i]; i++) {
		if (commands[i]->hidden)
			continue;
		fprintf(out, "\t\t'%s:", commands[i]->name);
		zsh_text(out, commands[i]->summary);
		fputs("'\n", out);
	}
	fputs("\t)\n\t_describe command commands\n}\n\n"
	      "_memprobe() {\n"
	      "\tlocal -a common\n"
	      "\tlocal context state line curcontext=$curcontext\n"
	      "\tcommon=( \\\n",
	      out);
	zsh_options(out, common_options);
	fputs("\t)\n"
	      "\t_arguments -C $common '--version[the version]' '1:command:_memprobe_commands' "
	      "'*::argument:->rest'\n"
	      "\t[[ $state == rest ]] || return\n"
	      "\tcase $words[1] in\n",
	      out);
	for (size_t i = 0; commands[i]; i++) {
		fprintf(out, "\t%s)\n\t\t_arguments $common \\\n", commands[i]->name);
		zsh_options(out, commands[i]->options);
		fprintf(out, "\t\t%s\n\t\t;;\n",
			takes_files(commands[i])	     ? "'*:file:_files'"
			: commands[i]->target == TARGET_NONE ? "'*:argument: '"
							     : "'1:target:_memprobe_targets' "
							       "'*:argument:_files'");
	}
	fputs("\tesac\n}\n\n_memprobe \"$@\"\n", out);
	return NULL;
}

/* ---- fish ---- */

static void fish_options(FILE *out, const struct command_option *options, const char *command)
{
	for (; options && options->name; options++) {
		char words[VALUE_WORDS_MAX];

		fputs("complete -c memprobe", out);
		if (command)
			fprintf(out, " -n '__fish_seen_subcommand_from %s'", command);
		if (options->letter)
			fprintf(out, " -s %c", options->letter);
		fprintf(out, " -l %s", options->name);
		switch (value_kind(options, words)) {
		case VALUE_NONE:
			break;
		case VALUE_FILE:
			fputs(" -rF", out);
			break;
		case VALUE_WORDS:
			fprintf(out, " -xa '%s'", words);
			break;
		case VALUE_TEXT:
			fputs(" -x", out);
			break;
		}
		fputs(" -d ", out);
		print_quoted(out, options->help);
		fputc('\n', out);
	}
}

static struct error *print_fish(FILE *out, void *data)
{
	fputs("# fish completion of memprobe, made by `memprobe completion fish`\n\n"
	      "function __memprobe_targets\n"
	      "\tfor dir in /proc/[0-9]*\n"
	      "\t\tstring replace /proc/ '' $dir\n"
	      "\t\tcat $dir/comm 2>/dev/null\n"
	      "\tend\n"
	      "end\n\n"
	      "complete -c memprobe -f\n"
	      "complete -c memprobe -n __fish_use_subcommand -l version -d 'the version'\n",
	      out);
	fish_options(out, common_options, NULL);
	for (size_t i = 0; commands[i]; i++) {
		if (commands[i]->hidden)
			continue;
		fprintf(out, "complete -c memprobe -n __fish_use_subcommand -a %s -d ",
			commands[i]->name);
		print_quoted(out, commands[i]->summary);
		fputc('\n', out);
		fish_options(out, commands[i]->options, commands[i]->name);
		if (takes_files(commands[i]))
			fprintf(out,
				"complete -c memprobe -n '__fish_seen_subcommand_from %s' -F\n",
				commands[i]->name);
		if (commands[i]->target != TARGET_NONE)
			fprintf(out,
				"complete -c memprobe -n '__fish_seen_subcommand_from %s' "
				"-a '(__memprobe_targets)'\n",
				commands[i]->name);
	}
	return NULL;
}

static struct error *run(struct command_context *context)
{
	static const struct {
		const char *shell;
		struct error *(*print)(FILE *out, void *data);
	} shells[] = { { "bash", print_bash }, { "zsh", print_zsh }, { "fish", print_fish } };

	for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++)
		if (!strcmp(context->arguments[0], shells[i].shell))
			return command_print(context, shells[i].print, NULL);
	return error_hint(error_create(ERROR_USAGE, "no completion for the shell '%s'",
				       context->arguments[0]),
			  "there is one for bash, zsh and fish");
}

const struct command cmd_completion = {
	.name = "completion",
	.arguments = "bash|zsh|fish",
	.summary = "the completion script of a shell",
	.target = TARGET_NONE,
	.arguments_min = 1,
	.arguments_max = 1,
	.hidden = true,
	.run = run,
};
