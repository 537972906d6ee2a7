package ai.forerun

import java.io.Closeable

/**
 * An answer as it comes. Iterate over it, or call [step]; close it if it is not read to its end. Used like its
 * session: from one thread at a time, but for [cancel].
 */
public class Answer internal constructor(
    private val session: Session,
    private val decoder: Handle,
    private val endIds: Set<Int>,
    private var remaining: Int,
) : Iterator<Token>, Closeable {
    private val drawn = IntArray(Native.MOST_DRAWN)
    private val stopped = BooleanArray(1)
    private val waiting = ArrayDeque<Token>()

    private var isClosed = false

    /** Why the answer ended; null while it goes on. */
    @get:Synchronized
    public var finish: Finish? = null
        @Synchronized private set

    internal val isOver: Boolean get() = finish != null || isClosed

    /**
     * One step: a piece of the prompt, which brings no tokens, or a draft and the call of the model that checks it.
     *
     * @throws IllegalStateException the answer is over, or it or its session is closed.
     */
    public fun step(): List<Token> {
        check(finish == null) { "the answer is over ($finish); start another one" }
        check(!isClosed) { "this answer is closed; start another one" }
        val tokens = ArrayList<Token>()
        session.handle.use { pointer ->
            val count = Native.next(pointer, drawn)
            if (count > 0) {
                take(count, tokens)
                Native.keep(pointer, tokens.size)
            } else if (count < 0) {
                finish = Finish.entries[-count - 1]
            }
        }
        if (finish != null) end(tokens)
        return tokens
    }

    /** Whether another token comes; runs steps until that is known. */
    override fun hasNext(): Boolean {
        while (waiting.isEmpty() && finish == null) waiting.addAll(step())
        return waiting.isNotEmpty()
    }

    override fun next(): Token {
        if (!hasNext()) throw NoSuchElementException("the answer is over ($finish)")
        return waiting.removeFirst()
    }

    /**
     * Asks the answer to end before its next step, which then says [Finish.CANCELLED]; from any thread. Does nothing to
     * one that is over, so that a late call does not meet the session's next answer.
     */
    @Synchronized
    public fun cancel() {
        if (!isOver) session.handle.useIfOpen(Native::cancel)
    }

    /** Gives the answer up if it is not over. The session keeps its tokens and can start another one. */
    @Synchronized
    override fun close() {
        isClosed = true
        decoder.close()
    }

    /** Takes tokens one by one, as if they had not been drawn together, until one ends the answer. */
    private fun take(count: Int, tokens: MutableList<Token>) {
        for (index in 0 until count) {
            val id = drawn[index]
            remaining -= 1
            val isEnd = id in endIds
            tokens += Token(id, if (isEnd) "" else decoder.use { Native.feed(it, id, stopped).utf8() })
            if (isEnd || stopped[0]) finish = Finish.STOP else if (remaining == 0) finish = Finish.LENGTH
            if (finish != null) return
        }
    }

    /** Adds what was held back to the last token. */
    private fun end(tokens: MutableList<Token>) {
        val rest = decoder.use { Native.flush(it).utf8() }
        decoder.close()
        val last = tokens.removeLastOrNull() ?: Token(null, "")
        if (last.id != null || rest.isNotEmpty()) tokens += last.copy(text = last.text + rest)
    }
}
