# A Perl program with a large hash and array: building, sorting, matching, forking. Usage: words.pl MEGABYTES
use strict;
use warnings;
my $megabytes = shift;
# Half of it is looked up at random, which is a page-in for nearly each step where memory is short; half in order.
my $count = int($megabytes / 2 * 1_000_000 / 290);
my (%hash, @list);
my @log = map { "line $_ " . "x" x 980 } 1 .. $megabytes / 2 * 1000;
for my $i (0 .. $count - 1) {
  my $key = sprintf("%08x", ($i * 2654435761) % 4294967296);
  $hash{$key} = "number $i " . ("abc" x ($i % 12));
  push @list, $key;
}
my $sum = 0;
for my $key (sort @list) { $sum = ($sum * 31 + length($hash{$key})) % 1000000007; }
print "sorted $sum\n";
my $matches = grep { $hash{$_} =~ /7 (abc){3,5}$/ } @list;
print "matched $matches\n";
my $pid = open(my $child, "-|") // die "fork: $!";
if ($pid == 0) {
  my $own = 0;
  $own += length for values %hash;
  $_ .= "child" for @list[0 .. 5000];
  print "child sees $own\n";
  exit 0;
}
print while <$child>;
close $child;
print "status $?\n";
delete @hash{@list[grep { $_ % 3 == 0 } 0 .. $#list]};
my $text = join ",", map { $hash{$_} // "gone" } @list;
print "joined ", length($text), " ", unpack("%32C*", $text), "\n";
my $logged = 0;
$logged += length for @log;
print "logged $logged\n";
print `echo from a shell | tr a-z A-Z`;
