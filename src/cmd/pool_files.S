/*
 * pool_files.S - the pools that come with memprobe, put into the program as they are: struct
 * builtin_pool of allocs_pool.c, one after the other.
 */
.macro POOL name
	.section .rodata
1:	.asciz	"\name"
2:	.incbin	"contrib/pools/\name\().pool"
3:	.byte	0
	.section .data.rel.ro.builtin_pools, "aw"
	.quad	1b, 2b, 3b
.endm

	.section .data.rel.ro.builtin_pools, "aw"
	.balign	8
	.globl	builtin_pools, builtin_pools_end
builtin_pools:
	POOL	apr
	POOL	glib
	POOL	nginx
	POOL	postgres
	POOL	talloc
builtin_pools_end:
	.section .note.GNU-stack,"",%progbits
