package ai.forerun

/**
 * What an answer is asked to be.
 *
 * @property maxTokens tokens that it has at most, 0 or more.
 * @property temperature 0 takes the likeliest token.
 * @property topK only so many of the likeliest tokens are drawn from; 0 is all.
 * @property topP only the likeliest tokens that have this probability together, above 0 and at most 1.
 * @property seed of the noise; the same seed gives the same answer.
 * @property drafter what drafts, by its spec: `auto`, `none`, `lookup:tokens=4` … No drafter changes an answer.
 * @property shape shape of a draft, by its spec; null is the drafter's own.
 * @property exit what lets tokens leave the model early, by its spec; null is never.
 * @property stop texts that end the answer before them.
 * @property ignoreEnd whether it goes on after a token that ends answers.
 */
public data class Options @JvmOverloads constructor(
    val maxTokens: Int = 256,
    val temperature: Double = 0.0,
    val topK: Int = 0,
    val topP: Double = 1.0,
    val seed: Long = 0,
    val drafter: String = "auto",
    val shape: String? = null,
    val exit: String? = null,
    val stop: List<String> = emptyList(),
    val ignoreEnd: Boolean = false,
) {
    internal fun specs(): Array<ByteArray?> =
        arrayOf(drafter.withoutNul("drafter"), shape?.withoutNul("shape"), exit?.withoutNul("exit"))
}

/** Why an answer ended. The order is that of `forerun_finish`. */
public enum class Finish {
    /** An end token or a stop string. */
    STOP,

    /** It has as many tokens as were asked for. */
    LENGTH,

    /** The session holds no more tokens. */
    CONTEXT_FULL,
    CANCELLED,
}

/**
 * A token of an answer.
 *
 * @property id null for text that was held back and is certain now that the answer is over.
 * @property text what the token makes certain, whole characters; may be empty.
 */
public data class Token(val id: Int?, val text: String)

/**
 * What an answer did so far.
 *
 * @property cachedTokens of the prompt's, found in the session.
 * @property verifyCalls calls of the model that checked drafts, or would have.
 * @property drafted tokens that were drafted.
 * @property accepted of them, those that became part of the answer.
 */
public data class Statistics(
    val promptTokens: Long,
    val cachedTokens: Long,
    val generatedTokens: Long,
    val verifyCalls: Long,
    val drafted: Long,
    val accepted: Long,
    val prefillMs: Double,
    val draftMs: Double,
    val verifyMs: Double,
    val commitMs: Double,
)

/**
 * What calls of the model with [rows] tokens, ascending from 1, cost on this device, in ms: what the planner goes by.
 *
 * @property isWhole false if the session had too little room left to measure the largest calls.
 */
public class Costs(public val rows: IntArray, public val ms: DoubleArray, public val isWhole: Boolean = true) {
    init {
        require(rows.size == ms.size && rows.size <= Native.MOST_COSTS) {
            "costs of ${rows.size} calls in ${ms.size} times; there must be as many times as calls, at most " +
                "${Native.MOST_COSTS}"
        }
    }
}
