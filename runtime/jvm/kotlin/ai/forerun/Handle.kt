package ai.forerun

import java.io.Closeable

/**
 * Owns an object of the core. Closing it ends all further use; the object is released when the last use that is under
 * way on another thread has ended, so that closing never waits and never frees what is in use.
 */
internal class Handle(
    private val pointer: Long,
    private val name: String,
    private val release: (Long) -> Unit,
) : Closeable {
    private var users = 0
    private var isClosed = false

    /** Calls [block] with the pointer. [IllegalStateException] after [close]. */
    inline fun <T> use(block: (Long) -> T): T {
        enter()
        try {
            return block(pointer)
        } finally {
            leave()
        }
    }

    /** Calls [block] with the pointer, unless it is closed. */
    inline fun useIfOpen(block: (Long) -> Unit) {
        if (!enterIfOpen()) return
        try {
            block(pointer)
        } finally {
            leave()
        }
    }

    private fun enter(): Unit = check(enterIfOpen()) { "this $name is closed; open another one" }

    @Synchronized
    private fun enterIfOpen(): Boolean {
        if (!isClosed) users += 1
        return !isClosed
    }

    @Synchronized
    private fun leave() {
        users -= 1
        if (isClosed && users == 0) release(pointer)
    }

    @Synchronized
    override fun close() {
        if (isClosed) return
        isClosed = true
        if (users == 0) release(pointer)
    }
}
