/* What Swift sees of the core. The compiler finds its headers by -I: runtime/native/include, or a package's include. */
#include <forerun/forerun.h>
#include <forerun/linked.h>
