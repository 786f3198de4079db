/* A preload library that does nothing: the command is tested without the runtime. */
int enchilada_idle_preload;
