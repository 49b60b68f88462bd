/*
 * alloc_truth with operator new and delete beside malloc.
 *
 * cflags: -O1 -faligned-new
 */
#include "alloc_truth.h"
