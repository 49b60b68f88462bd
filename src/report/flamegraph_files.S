/*
 * flamegraph_files.S - style and script of flame graphs, put into the program as they are.
 */
	.section .rodata
	.globl	flamegraph_css, flamegraph_css_end, flamegraph_js, flamegraph_js_end
flamegraph_css:
	.incbin	"src/report/flamegraph.css"
flamegraph_css_end:
	.byte	0
flamegraph_js:
	.incbin	"src/report/flamegraph.js"
flamegraph_js_end:
	.byte	0
	.section .note.GNU-stack,"",%progbits
