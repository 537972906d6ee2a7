package ai.forerun

import java.io.Closeable

/**
 * A compiled model, opened for the processor of this machine. Read-only: any number of sessions and threads share it.
 * Close it after its sessions.
 */
public class Bundle private constructor(pointer: Long) : Closeable {
    private val handle = Handle(pointer, "bundle", Native::releaseBundle)
    private val openedText = lazy { handle.use { Text(Native.openText(it)) } }

    /** Name of the target that it runs for. */
    public val target: String get() = handle.use { Native.bundleTarget(it).utf8() }

    /** Sizes of the model. */
    public val sizes: ModelSizes get() = handle.use { ModelSizes(Native.bundleSizes(it)) }

    /**
     * Tokenizer and chat template; opened when first asked for. [ForerunException] with [ForerunException.TEXT]: the
     * bundle was compiled without, and the message says why.
     */
    public val text: Text get() = openedText.value

    /**
     * A session over this bundle, with a thread team of its own.
     *
     * @param capacity tokens that prompt and answers may have together; 0 is the model's context length. Memory for
     *   them is reserved here and used as they come.
     * @param threads 0 is one per physical core.
     */
    @JvmOverloads
    public fun session(capacity: Int = 0, threads: Int = 0): Session =
        Session(text, handle.use { Native.createSession(it, capacity, threads) })

    override fun close() {
        if (openedText.isInitialized()) text.close()
        handle.close()
    }

    public companion object {
        /** Version of the core, for example `0.1.0`. */
        @JvmStatic
        public val version: String get() = Native.version().utf8()

        /**
         * Opens the bundle in folder [path]. Everything in it is verified first.
         *
         * Where libforerun_jni was built with a package of `forerun package`, a program that is linked into the app
         * runs it, else the bundle's own library: the one for [target], such as one for a device beside the processor,
         * or for null the best one for this processor.
         *
         * @throws ForerunException a file is missing or damaged, or nothing in it runs here.
         */
        @JvmStatic
        @JvmOverloads
        public fun open(path: String, target: String? = null): Bundle =
            Bundle(Native.openBundle(path.withoutNul("path"), target?.withoutNul("target")))
    }
}

/**
 * Sizes of a model.
 *
 * @property contextLength positions that a session may have at most.
 */
public class ModelSizes internal constructor(values: IntArray) {
    public val layers: Int = values[0]
    public val hiddenSize: Int = values[1]
    public val vocabularySize: Int = values[2]
    public val contextLength: Int = values[3]
}
