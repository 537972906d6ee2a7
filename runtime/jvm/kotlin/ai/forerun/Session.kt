package ai.forerun

import java.io.Closeable

/**
 * A conversation: one sequence of tokens with its cache. Serves one thread at a time, though not always the same one:
 * a call while another thread is inside is refused with [ForerunException.BUSY]. [Answer.cancel] and [close] may come
 * from any thread.
 *
 * A prompt is always given whole. As far as the session holds its tokens already they are not computed again, so that
 * a chat costs only what is new in it.
 */
public class Session internal constructor(private val text: Text, pointer: Long) : Closeable {
    internal val handle = Handle(pointer, "session", Native::releaseSession)
    private var current: Answer? = null

    /** Tokens that it has room for. */
    public val capacity: Int get() = handle.use { Native.sessionOptions(it)[0] }

    /** Threads of its team. */
    public val threads: Int get() = handle.use { Native.sessionOptions(it)[1] }

    /** Tokens that it holds: those of the last prompt and the answer to it. */
    public val length: Int get() = handle.use(Native::sessionLength)

    /** What the answer under way, or the last one, did so far. */
    public val statistics: Statistics
        get() = handle.use { pointer ->
            val times = DoubleArray(4)
            val counts = Native.statistics(pointer, times)
            Statistics(
                counts[0], counts[1], counts[2], counts[3], counts[4], counts[5],
                times[0], times[1], times[2], times[3],
            )
        }

    /**
     * What calls cost on this device, if that was measured or set; keep it in a file of the app and set it at the next
     * start. Without, the planner's first answer measures.
     */
    public var costs: Costs?
        get() = readCosts(Native::costs)
        set(value) {
            requireNotNull(value) { "costs can be replaced, but not taken back" }
            handle.use { Native.setCosts(it, value.rows, value.ms) }
        }

    /** Measures [costs], some forty calls of the model. */
    public fun tune(): Costs {
        checkIdle()
        return checkNotNull(readCosts(Native::tune))
    }

    /** Forgets all tokens after the first [length]. */
    public fun rewind(length: Int) {
        checkIdle()
        handle.use { Native.rewind(it, length) }
    }

    /** Starts an answer to a conversation. */
    @JvmOverloads
    public fun start(messages: List<Message>, options: Options = Options()): Answer =
        start(text.encodeChat(messages), options)

    /** Starts an answer that continues a text. */
    @JvmOverloads
    public fun start(prompt: String, options: Options = Options()): Answer =
        start(text.encodePrompt(prompt), options)

    /**
     * Starts an answer to token ids. The last one has to be over, or closed.
     *
     * @throws ForerunException the prompt is empty or does not fit, or an option is not allowed.
     */
    @JvmOverloads
    public fun start(prompt: IntArray, options: Options = Options()): Answer {
        checkIdle()
        handle.use {
            Native.start(
                it, prompt, options.specs(), options.temperature, options.topK, options.topP, options.seed,
                options.maxTokens,
            )
        }
        val endIds = if (options.ignoreEnd) emptySet() else text.endIds
        return Answer(this, text.decoder(options.stop), endIds, options.maxTokens).also { current = it }
    }

    /** Ends an answer that is under way; its next step throws [IllegalStateException]. */
    override fun close(): Unit = handle.close()

    private fun checkIdle() {
        check(current?.isOver ?: true) { "an answer is under way in this session; read it to its end or close it" }
    }

    private fun readCosts(read: (Long, IntArray, DoubleArray) -> Int): Costs? {
        val rows = IntArray(Native.MOST_COSTS)
        val ms = DoubleArray(Native.MOST_COSTS)
        val found = handle.use { read(it, rows, ms) }
        val count = Math.abs(found)
        return if (count == 0) null else Costs(rows.copyOf(count), ms.copyOf(count), found > 0)
    }
}
