# Sidekiq with Freshet. Arguments: port of Freshet, port of its cache. Started again by itself as the server of jobs.
require "sidekiq"
require "sidekiq/api"

PORT = (ENV["FRESHET_PORT"] || ARGV[0]).to_i
URL = { url: "redis://127.0.0.1:#{PORT}/2" }.freeze
Sidekiq.logger.level = Logger::ERROR
Redis.silence_deprecations = true
Sidekiq.configure_client { |config| config.redis = URL }
Sidekiq.configure_server do |config|
  config.redis = URL
  # How often retries and scheduled jobs are looked for, in seconds.
  Sidekiq.options[:poll_interval_average] = 0.2
end

class Add
  include Sidekiq::Worker

  def perform(number)
    Sidekiq.redis { |redis| redis.hincrby("sums", number, number + 1) }
  end
end

class Unsteady
  include Sidekiq::Worker
  sidekiq_options retry: 5
  sidekiq_retry_in { 0 }

  def perform
    tries = Sidekiq.redis { |redis| redis.incr("tries") }
    raise "not yet" if tries < 3
  end
end

class Hopeless
  include Sidekiq::Worker
  sidekiq_options retry: 0

  def perform
    raise "on purpose"
  end
end

class Ordered
  include Sidekiq::Worker

  def perform(name)
    Sidekiq.redis { |redis| redis.rpush("order", name) }
  end
end

def works(what)
  puts "works: #{what}"
end

def await(what)
  deadline = Time.now + 90
  until (found = yield)
    raise "#{what}: not in time" if Time.now > deadline

    sleep 0.02
  end
  found
end

def kept(command, *arguments)
  Sidekiq.redis { |redis| redis.public_send(command, *arguments) }
end

def exercise(cache)
  100.times { |number| Add.perform_async(number) }
  cache.flushall # Behind Freshet's back: nothing may be lost.
  Sidekiq::Client.push_bulk("class" => Add, "args" => (100...300).map { |number| [number] })
  await("all are added") { kept(:hlen, "sums") == 300 }
  raise "wrong sums" unless kept(:hgetall, "sums").all? { |number, sum| sum.to_i == number.to_i + 1 }
  works "jobs, in bulk; none lost when the cache is emptied"

  Add.perform_in(0.5, 1000)
  late = Add.perform_in(3600, 2000)
  raise "not scheduled" unless Sidekiq::ScheduledSet.new.any? { |job| job.jid == late }
  await("its time has come") { kept(:hget, "sums", 1000) }
  Sidekiq::ScheduledSet.new.find_job(late).delete
  raise "still scheduled" unless Sidekiq::ScheduledSet.new.size.zero?
  works "jobs of a later time, deleted"

  Unsteady.perform_async
  await("it works at last") do
    # Sidekiq itself would wait for some seconds, drawn at random.
    Sidekiq::RetrySet.new.retry_all
    kept(:get, "tries") == "3"
  end
  Hopeless.perform_async
  dead = await("it is dead") { Sidekiq::DeadSet.new.first }
  raise "wrong job" unless dead.klass == "Hopeless" && dead["error_message"] == "on purpose"
  dead.delete
  works "retries, dead jobs"

  %w[one two three].each { |name| Ordered.set(queue: "slow").perform_async(name) }
  await("all three") { kept(:llen, "order") == 3 }
  queue = Sidekiq::Queue.new("nobody")
  Sidekiq::Client.push("class" => Add, "args" => [1], "queue" => "nobody")
  raise "not enqueued" unless queue.size == 1
  queue.clear
  raise "not cleared" unless queue.size.zero?
  # Told every few seconds.
  await("all are counted") { Sidekiq::Stats.new.then { |it| [it.processed, it.failed] == [308, 3] } }
  await("it is listed") { Sidekiq::ProcessSet.new.size == 1 }
  works "queues, statistics, processes"
end

if $PROGRAM_NAME == __FILE__
  puts "version: #{Sidekiq::VERSION}"
  cache = Redis.new(port: ARGV[1].to_i)
  Sidekiq.redis(&:flushdb)
  options = ["-r", File.expand_path(__FILE__), "-c", "4", "-q", "default", "-q", "slow", "-t", "5"]
  server = spawn({ "FRESHET_PORT" => PORT.to_s }, "sidekiq", *options, out: File::NULL)
  begin
    exercise(cache)
  ensure
    Process.kill("TERM", server)
    Process.wait(server)
  end
  puts "all well"
end
