// Marks the symbols that the preload library shows to the program; everything else is hidden.
#pragma once
#define ENCHILADA_EXPORT __attribute__((visibility("default")))
