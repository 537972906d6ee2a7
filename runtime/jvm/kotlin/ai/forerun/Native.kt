package ai.forerun

/** The methods of libforerun_jni, one for each call of the core's; texts are UTF-8, handles are pointers. */
internal object Native {
    /** FORERUN_MOST_DRAWN: tokens that a step draws at most. */
    const val MOST_DRAWN = 64

    /** FORERUN_MOST_COSTS. */
    const val MOST_COSTS = 16

    init {
        System.loadLibrary("forerun_jni")
    }

    @JvmStatic external fun version(): ByteArray

    @JvmStatic external fun openBundle(path: ByteArray, target: ByteArray?): Long

    @JvmStatic external fun releaseBundle(bundle: Long)

    @JvmStatic external fun bundleTarget(bundle: Long): ByteArray

    @JvmStatic external fun bundleSizes(bundle: Long): IntArray

    @JvmStatic external fun createSession(bundle: Long, capacity: Int, threads: Int): Long

    @JvmStatic external fun releaseSession(session: Long)

    @JvmStatic external fun sessionOptions(session: Long): IntArray

    @JvmStatic external fun sessionLength(session: Long): Int

    @JvmStatic external fun rewind(session: Long, length: Int)

    @JvmStatic
    external fun start(
        session: Long,
        prompt: IntArray,
        specs: Array<ByteArray?>,
        temperature: Double,
        topK: Int,
        topP: Double,
        seed: Long,
        maxTokens: Int,
    )

    @JvmStatic external fun next(session: Long, tokenIds: IntArray): Int

    @JvmStatic external fun keep(session: Long, count: Int)

    @JvmStatic external fun cancel(session: Long)

    @JvmStatic external fun statistics(session: Long, timesMs: DoubleArray): LongArray

    @JvmStatic external fun tune(session: Long, rows: IntArray, ms: DoubleArray): Int

    @JvmStatic external fun costs(session: Long, rows: IntArray, ms: DoubleArray): Int

    @JvmStatic external fun setCosts(session: Long, rows: IntArray, ms: DoubleArray)

    @JvmStatic external fun openText(bundle: Long): Long

    @JvmStatic external fun releaseText(text: Long)

    @JvmStatic external fun textFacts(text: Long): IntArray

    @JvmStatic external fun encode(text: Long, utf8: ByteArray): IntArray

    @JvmStatic external fun decode(text: Long, tokenIds: IntArray): ByteArray

    @JvmStatic external fun chatPrompt(text: Long, roles: Array<ByteArray>, contents: Array<ByteArray>): ByteArray

    @JvmStatic external fun createDecoder(text: Long, stops: Array<ByteArray>): Long

    @JvmStatic external fun releaseDecoder(decoder: Long)

    @JvmStatic external fun feed(decoder: Long, tokenId: Int, stopped: BooleanArray): ByteArray

    @JvmStatic external fun flush(decoder: Long): ByteArray
}

internal fun ByteArray.utf8(): String = toString(Charsets.UTF_8)

/** UTF-8 of a text that C reads up to its first NUL. */
internal fun String.withoutNul(what: String): ByteArray {
    require('\u0000' !in this) { "$what holds the character U+0000, which ends a text in C; remove it" }
    return toByteArray(Charsets.UTF_8)
}
