package ai.forerun

/**
 * A call of the core failed.
 *
 * @property status the `forerun_status` of the core's header, such as [FILE] or [CONTEXT_FULL].
 * @property message what was wrong and how to mend it, as the core says it.
 */
public class ForerunException internal constructor(public val status: Int, utf8: ByteArray) :
    RuntimeException(utf8.utf8()) {
    /** Statuses that apps tell apart; the others are in `forerun.h`. */
    public companion object {
        public const val INVALID_ARGUMENT: Int = 1
        public const val OUT_OF_MEMORY: Int = 2
        public const val BUSY: Int = 3
        public const val CONTEXT_FULL: Int = 4
        public const val FILE: Int = 20
        public const val HASH: Int = 24
        public const val UNKNOWN_TARGET: Int = 26
        public const val CPU_FEATURE: Int = 28
        public const val TEXT: Int = 32
        public const val SAVED: Int = 33
        public const val DEVICE: Int = 34
    }
}
