package ai.forerun

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.flow.map

/**
 * The answer to a conversation as it comes, in pieces of whole characters. Collecting starts it.
 *
 * Steps run on [Dispatchers.Default], one after the other. Cancelling the collector ends the answer before its next
 * step; the session can then start another one. One flow of a session is collected at a time.
 */
public fun Session.chat(messages: List<Message>, options: Options = Options()): Flow<String> =
    tokens { start(messages, options) }.map { it.text }

/** The tokens that continue a text; else as [chat]. */
public fun Session.generate(prompt: String, options: Options = Options()): Flow<Token> =
    tokens { start(prompt, options) }

/** The tokens that follow token ids; else as [chat]. */
public fun Session.generate(prompt: IntArray, options: Options = Options()): Flow<Token> =
    tokens { start(prompt, options) }

private fun tokens(start: () -> Answer): Flow<Token> =
    flow {
        start().use { answer ->
            while (answer.finish == null) {
                currentCoroutineContext().ensureActive()
                answer.step().forEach { emit(it) }
            }
        }
    }.flowOn(Dispatchers.Default)
