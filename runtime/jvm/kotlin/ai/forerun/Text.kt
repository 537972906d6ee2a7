package ai.forerun

/** Tokenizer and chat template of a [Bundle], closed with it. May be shared between threads. */
public class Text internal constructor(pointer: Long) {
    private val handle = Handle(pointer, "bundle's text", Native::releaseText)
    private val facts = handle.use(Native::textFacts)
    private val bosId: Int? = facts[0].takeIf { it >= 0 }

    /** Whether [encodeChat] works. */
    public val hasChat: Boolean = facts[1] != 0

    /** Ids of the tokens that end an answer. */
    public val endIds: Set<Int> = facts.drop(2).toSet()

    /** Ids of a text. Special tokens that are written out in it become their ids. */
    public fun encode(text: String): IntArray = handle.use { Native.encode(it, text.toByteArray(Charsets.UTF_8)) }

    /** Ids of a prompt that is no chat: those of the text, after the id that the model wants at the beginning. */
    public fun encodePrompt(text: String): IntArray {
        val ids = encode(text)
        return if (bosId != null) intArrayOf(bosId) + ids else ids
    }

    /**
     * Ids of a conversation, up to where the answer begins.
     *
     * @throws ForerunException there is no chat template, or it does not allow these messages.
     */
    public fun encodeChat(messages: List<Message>): IntArray {
        val roles = Array(messages.size) { messages[it].role.utf8 }
        val contents = Array(messages.size) { messages[it].content.toByteArray(Charsets.UTF_8) }
        return handle.use { Native.encode(it, Native.chatPrompt(it, roles, contents)) }
    }

    /** Text of ids, without special tokens. */
    public fun decode(tokenIds: IntArray): String = handle.use { Native.decode(it, tokenIds).utf8() }

    internal fun decoder(stop: List<String>): Handle {
        val stops = Array(stop.size) { stop[it].withoutNul("a stop string") }
        return Handle(handle.use { Native.createDecoder(it, stops) }, "answer", Native::releaseDecoder)
    }

    internal fun close(): Unit = handle.close()
}

/** Who says a [Message]. */
public enum class Role(name: String) {
    SYSTEM("system"),
    USER("user"),
    ASSISTANT("assistant"),
    ;

    internal val utf8: ByteArray = name.toByteArray(Charsets.UTF_8)
}

/** One message of a conversation. */
public data class Message(val role: Role, val content: String)
